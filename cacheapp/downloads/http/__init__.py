"""HTTP for downloads: connections, requests, responses, ranges, retries, URL and address policy."""
