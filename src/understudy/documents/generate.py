"""The JSON schemas of the documents that have a model."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from understudy.common.jsonio import write_json
from understudy.documents.run import RunDocument
from understudy.documents.server_config import ServerConfigDocument
from understudy.documents.validate import SCHEMAS
from understudy.documents.verdict import VerdictDocument

#: The models by the name of their schema.
MODELS: dict[str, type[BaseModel]] = {
    "run": RunDocument,
    "server_config": ServerConfigDocument,
    "verdict": VerdictDocument,
}


class _Plain(GenerateJsonSchema):
    """Without titles that repeat names, and without defaults."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])


def schema_of(name: str) -> dict[str, Any]:
    """Return the JSON schema of a document."""
    found = MODELS[name].model_json_schema(schema_generator=_Plain)
    for definition in found.get("$defs", {}).values():
        definition.pop("title", None)
    return {"$schema": _Plain.schema_dialect, "$id": f"{name}.schema.json", **found}


def write_schemas() -> None:
    """Write every generated schema beside the others."""
    for name in MODELS:
        write_json(SCHEMAS / f"{name}.schema.json", schema_of(name))
