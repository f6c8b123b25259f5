"""Example bodies for the OpenAPI document, assembled from the examples of each schema's members."""

from __future__ import annotations

from typing import Any, TypeAlias

from service.api.problems import FIELD_REQUIRED, UNKNOWN_NAME

Schema: TypeAlias = dict[str, Any]
_BY_FORMAT = {"date-time": "2026-03-02T09:30:00Z", "date": "2026-03-02"}
_BY_TYPE: dict[str, Any] = {"integer": 1, "number": 1.5, "boolean": True, "null": None}
TOO_SMALL = "Input should be greater than or equal to 1"


def example_of(schema: Schema, schemas: dict[str, Schema]) -> Any:
    """Return an example of a schema. `schemas` are those that it may refer to.

    Raises: ValueError for a text without an example.
    """
    if "$ref" in schema:
        return example_of(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    for name in ("examples", "enum"):
        if schema.get(name):
            return schema[name][0]
    if "const" in schema:
        return schema["const"]
    return _assembled(schema, schemas)


def _assembled(schema: Schema, schemas: dict[str, Schema]) -> Any:
    match schema.get("type"):
        case None:
            return example_of(schema["anyOf"][0], schemas)
        case "object":
            members = schema.get("properties", {}).items()
            return {name: example_of(member, schemas) for name, member in members}
        case "array":
            return [example_of(schema["items"], schemas)]
    return _example_of_scalar(schema)


def _example_of_scalar(schema: Schema) -> Any:
    if schema["type"] == "string":
        if schema.get("format") not in _BY_FORMAT:
            raise ValueError(f"{schema.get('title', 'A text')} has no example.")
        return _BY_FORMAT[schema["format"]]
    return _BY_TYPE[schema["type"]]


def invalid_values(operation: dict[str, Any], schemas: dict[str, Schema]) -> list[dict[str, str]]:
    """Return the `errors` of a 422 response that the operation can return.

    They answer a body without its first required member or with an unknown one; else an id or a limit of 0; else an
    unknown parameter.
    """
    contents = operation.get("requestBody", {}).get("content", {})
    for media_type, content in contents.items():
        if media_type != "multipart/form-data":
            required = schemas[content["schema"]["$ref"].rpartition("/")[2]].get("required", ["unknown"])
            return [_error(f"/{required[0]}", UNKNOWN_NAME if required == ["unknown"] else FIELD_REQUIRED)]
    for parameter in operation.get("parameters", []):
        if parameter["schema"].get("minimum") == 1 and (parameter["in"] == "path" or parameter["name"] == "limit"):
            return [_error(f"/{parameter['in']}/{parameter['name']}", TOO_SMALL)]
    return [_error("/query/unknown", UNKNOWN_NAME)]


def _error(pointer: str, message: str) -> dict[str, str]:
    return {"pointer": pointer, "message": message}
