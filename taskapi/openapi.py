"""The OpenAPI 3.1 description of the API: openapi.yaml, with fields and limits as the schemas have them."""

from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from apispec.ext.marshmallow.openapi import OpenAPIConverter

from taskapi.schemas import CREATE, LIST, UPDATE, TaskSchema


@cache
def describe() -> dict[str, Any]:
    """Return the document."""
    document: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("openapi.yaml").read_text())
    example = document.pop("x-shared")["example"]  # one object, wherever the document has it
    example |= {name: field.metadata["example"] for name, field in CREATE.fields.items()}
    # Without names and a registry for nested schemas, of which there are none.
    converter = OpenAPIConverter(document["openapi"], lambda schema: None, None)  # type: ignore[arg-type]
    document["paths"]["/api/tasks"]["get"]["parameters"] = converter.schema2parameters(LIST, location="query")
    of_create = [name for name, field in CREATE.load_fields.items() if field.required]
    # Each with the fields: makers of types take a branch with nothing but a required name for anything at all.
    fields = [{"$ref": "#/components/schemas/TaskFields"}]
    document["components"]["schemas"] = {
        "Task": _object(converter, CREATE, CREATE.fields) | {"required": [*CREATE.fields]},
        "NewTask": _object(converter, CREATE, CREATE.load_fields) | {"required": of_create},
        "TaskFields": _object(converter, UPDATE, UPDATE.load_fields),
        "TaskChanges": {"anyOf": [{"allOf": fields, "required": [name]} for name in UPDATE.load_fields]},
    }
    return document


def _object(converter: OpenAPIConverter, schema: TaskSchema, names: Collection[str]) -> dict[str, Any]:
    """The fields with these names; the others may stand there, whatever they hold."""
    properties = {}
    for name, field in schema.fields.items():
        described = converter.field2property(field) if name in names else {"description": "Ignored."}
        described.pop("default", None)  # makers of types would take the key for one that has to be sent
        properties[name] = described
    return {"type": "object", "properties": properties, "additionalProperties": False}
