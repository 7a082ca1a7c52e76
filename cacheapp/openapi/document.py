"""The whole document."""

import importlib.metadata
from typing import Any

from django.urls import reverse

from cacheapp.demo.namespace import aliases
from cacheapp.openapi import cache_paths, page_paths
from cacheapp.openapi.parts import PID, STRING, operation, success
from cacheapp.telemetry.installed import has_downloads


def document() -> dict[str, Any]:
    """Return the description of the API of this project."""
    paths = {**cache_paths.paths(aliases()), **page_paths.paths()}
    schemas = {"Problem": _problem(), **cache_paths.schemas()}
    if has_downloads():
        from cacheapp.openapi import download_paths  # noqa: PLC0415 (where downloads are installed)

        paths |= download_paths.paths()
        schemas |= download_paths.schemas()
    paths["/api/openapi.json"] = {"get": _itself()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "cacheapp",
            "version": _version(),
            "description": "Downloads and statistics over HTTP, and calls on caches for "
            "demonstrations. Every worker responds alike.",
        },
        "servers": [{"url": reverse("cacheapp:api").removesuffix("/api/") or "/"}],
        "security": [{"token": []}, {"session": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "sessionid",
                    "description": "With the header X-CSRFToken for requests that change something.",
                },
            },
        },
    }


def _problem() -> dict[str, Any]:
    fields = {
        "pid": PID,
        "title": STRING,
        "status": {"type": "integer"},
        "detail": STRING,
        "error": {"type": "string", "description": "The same as `detail`."},
    }
    return {
        "type": "object",
        "description": "RFC 9457. Nothing was changed, unless `outcome` is info.",
        "properties": fields,
        "required": list(fields),
    }


def _itself() -> dict[str, Any]:
    found = success("OpenAPI 3.1.", {"type": "object"})
    return operation("openapi", "This description", None, {200: found})


def _version() -> str:
    try:
        return importlib.metadata.version("cacheapp")
    except importlib.metadata.PackageNotFoundError:  # a checkout
        return "unreleased"
