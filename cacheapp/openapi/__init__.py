"""The description of the HTTP API, in OpenAPI 3.1; made of the limits that the code reads requests with."""
