"""The parameters of a strategy as rows of data, those of nested settings too, read from the config's JSON schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from pah_opt.recipe.allowed import in_words, resolved

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import BaseModel
    from pydantic_core.core_schema import WithDefaultSchema

    Schema = Mapping[str, Any]


class _WithFactories(GenerateJsonSchema):
    """A JSON schema that shows what ``default_factory`` makes; pydantic leaves such defaults out."""

    def default_schema(self, schema: WithDefaultSchema) -> JsonSchemaValue:
        """Return the schema of a field that has a default."""
        if "default" not in schema and not schema.get("default_factory_takes_data"):
            schema = {**schema, "default": schema["default_factory"]()}  # type: ignore[call-arg]  # it takes none
        return super().default_schema(schema)


def describe_parameters(config_type: type[BaseModel]) -> Iterator[dict[str, Any]]:
    """Yield each parameter's name, type in words, default and documentation.

    The settings of a nested model follow the parameter that holds it, with dotted names such as ``training.epochs``;
    their defaults are those that this parameter gives them.
    """
    schema = config_type.model_json_schema(by_alias=True, schema_generator=_WithFactories)
    yield from _rows(schema, schema.get("$defs", {}), "", {}, ())


def _rows(
    schema: Schema, definitions: Schema, prefix: str, given: Schema, above: tuple[Schema, ...]
) -> Iterator[dict[str, Any]]:
    """Yield the rows of one model.

    Args:
        schema: of the model.
        definitions: that its references name.
        prefix: the dotted name of the parameter that holds it, with a dot.
        given: the defaults that this parameter gives.
        above: the fields of the models that hold this one; they end the recursion where a model holds itself.
    """
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        default = given.get(name, field.get("default"))
        yield {
            "name": prefix + name,
            "type": in_words(field, definitions),
            "required": name in required,
            "default": default,
            "description": " ".join(field.get("description", "").split()),
        }
        inner = default if isinstance(default, dict) else {}
        for model in _models(field, definitions):
            if model["properties"] not in above:
                yield from _rows(model, definitions, f"{prefix}{name}.", inner, (*above, model["properties"]))


def _models(field: Schema, definitions: Schema) -> Iterator[Schema]:
    """Yield the nested models that a field may hold."""
    for alternative in field.get("anyOf") or field.get("oneOf") or (field,):
        model = resolved(alternative, definitions)
        if model.get("properties"):
            yield model
