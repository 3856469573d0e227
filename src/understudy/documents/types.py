"""What the models of the documents share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Text = Annotated[str, Field(min_length=1)]
RunId = Annotated[str, Field(pattern=r"^[0-9]{8}-[0-9]{6}Z$")]
Host = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
UtteranceId = Annotated[str, Field(pattern=r"^u(0[1-9]|10)$")]
Time = Annotated[
    str,
    Field(
        pattern=r"^[0-9]{4}-[0-1][0-9]-[0-3][0-9]"
        r"T[0-2][0-9]:[0-5][0-9]:[0-6][0-9](\.[0-9]{1,6})?Z$"
    ),
]
Count = Annotated[int, Field(ge=0)]
Measure = Annotated[float, Field(ge=0)]
Version = Annotated[int, Field(ge=1, le=1)]


def _unique(items: list[Any]) -> list[Any]:
    if any(item in items[:index] for index, item in enumerate(items)):
        raise ValueError("items are repeated")
    return items


#: For lists: no two items are equal.
Unique = (AfterValidator(_unique), Field(json_schema_extra={"uniqueItems": True}))


class Document(BaseModel):
    """An object with known fields only, and without conversion of types."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def _notes(schema: dict[str, Any]) -> None:
    schema["patternProperties"] = {"_note$": {"anyOf": [{"type": "string"}, {"type": "null"}]}}
    schema["additionalProperties"] = False


class Noted(Document):
    """A `Document` that may also have fields ``<field>_note``, each a string or null."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_notes)
    __pydantic_extra__: dict[str, str | None] = Field(init=False)

    @model_validator(mode="after")
    def _only_notes(self) -> Noted:
        unknown = [name for name in self.__pydantic_extra__ if not name.endswith("_note")]
        if unknown:
            raise ValueError(f"unknown fields: {', '.join(unknown)}")
        return self
