"""A JSON Schema of recipes, made from what is installed: for completion and checking in editors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pah_opt.recipe import Recipe

if TYPE_CHECKING:
    from pah_opt.optimizer import AnyOptimizer
    from pah_opt.registry.catalogue import Registry

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def recipe_schema(registry: Registry) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of recipes for the strategies in ``registry``.

    ``use`` is one of the strategies' names, and decides which parameters ``with`` takes.
    """
    schema = {"$schema": DIALECT, **Recipe.model_json_schema(by_alias=True)}
    schema["title"] = "pah_opt recipe"
    step, definitions = schema["$defs"]["Step"], schema["$defs"]
    optimizers = [registered.optimizer for registered in registry.optimizers.values()]
    step["properties"]["use"] |= {
        "enum": [optimizer.name for optimizer in optimizers],
        "markdownEnumDescriptions": [optimizer.summary for optimizer in optimizers],
    }
    for optimizer in optimizers:
        step.setdefault("allOf", []).append(_when_used(optimizer))
        definitions.update(_parameter_definitions(optimizer))
    return schema


def _when_used(optimizer: AnyOptimizer) -> dict[str, Any]:
    """Tie ``with`` to the parameters of one strategy, where ``use`` names it."""
    needs_with = any(field.is_required() for field in optimizer.config_type.model_fields.values())
    return {
        "if": {"properties": {"use": {"const": optimizer.name}}, "required": ["use"]},
        "then": {
            "properties": {"with": {"$ref": f"#/$defs/{optimizer.name}"}},
            **({"required": ["with"]} if needs_with else {}),
        },
    }


def _parameter_definitions(optimizer: AnyOptimizer) -> dict[str, Any]:
    """Return the schema of a strategy's parameters, and those it refers to, under names of its own."""
    prefix = f"{optimizer.name}:"
    schema = optimizer.config_type.model_json_schema(by_alias=True, ref_template=f"#/$defs/{prefix}{{model}}")
    inner = {prefix + name: definition for name, definition in schema.pop("$defs", {}).items()}
    schema["title"] = optimizer.name
    return {optimizer.name: schema, **inner}
