"""The pieces that descriptions of operations are made of. Pure."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

Schema = dict[str, Any]

STRING: Schema = {"type": "string"}
INTEGER: Schema = {"type": "integer"}
COUNT: Schema = {"type": "integer", "minimum": 0}
BOOLEAN: Schema = {"type": "boolean"}
ANY: Schema = {}
MOMENT: Schema = {"type": "string", "format": "date-time"}
PID: Schema = {"type": "integer", "description": "The worker that responded."}


def nullable(schema: Schema) -> Schema:
    """Return a schema that allows null too."""
    return {**schema, "type": [schema["type"], "null"]}


def record(properties: Mapping[str, Schema], optional: Sequence[str] = ()) -> Schema:
    """Return the schema of an object with these fields and no others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def list_of(schema: Schema, **limits: Any) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": schema, **limits}


def ref(name: str) -> Schema:
    """Return a reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def query(name: str, schema: Schema, text: str) -> Schema:
    """Return an optional parameter of the query."""
    return {"name": name, "in": "query", "schema": schema, "description": text}


def in_path(name: str, schema: Schema, text: str) -> Schema:
    """Return a parameter of the path."""
    return {"name": name, "in": "path", "required": True, "schema": schema, "description": text}


def success(text: str, schema: Schema, media: str = "application/json", **more: Any) -> Schema:
    """Return a response."""
    return {"description": text, "content": {media: {"schema": schema}}, **more}


def operation(
    name: str,
    summary: str,
    permission: str | None,
    responses: Mapping[int, Schema],
    *,
    errors: Mapping[int, str] | None = None,
    parameters: Sequence[Schema] = (),
    body: Schema | None = None,
    body_required: bool = True,
) -> Schema:
    """Return an operation; the errors of authentication, and those of its body, are added."""
    failing = {401: "No valid credentials.", 403: "Without the permission.", **(errors or {})}
    if body is not None:
        failing[400] = "; ".join(filter(None, [failing.get(400), "the body is not valid."]))
        failing |= {411: "The body is chunked.", 413: "The body is too large."}
        failing[415] = "The body is not application/json."
    found: Schema = {
        "operationId": name,
        "summary": summary,
        "description": f"Requires `{permission}`." if permission else "Any valid credentials.",
        "parameters": list(parameters),
        "responses": {str(status): response for status, response in responses.items()},
    }
    for status, text in sorted(failing.items()):
        title = HTTPStatus(status).phrase
        found["responses"].setdefault(
            str(status),
            {
                "description": text or title,
                "content": {"application/problem+json": {"schema": ref("Problem")}},
            },
        )
    if body is not None:
        found["requestBody"] = {
            "required": body_required,
            "content": {"application/json": {"schema": body}},
        }
    return found
