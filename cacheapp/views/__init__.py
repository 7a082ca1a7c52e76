"""The views: the HTTP API in JSON, and the HTML pages (`pages*.py`)."""
