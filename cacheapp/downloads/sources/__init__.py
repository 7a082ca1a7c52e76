"""Sources of a job's files: URL lists, manifests, S3 prefixes."""
