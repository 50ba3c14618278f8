"""Names to Optimizers: what loaded plugins bring, and recipes checked against it."""

from __future__ import annotations

from pah_opt.registry.catalogue import RegisteredOptimizer, Registry
from pah_opt.registry.checked import CheckedRecipe, CheckedStep
from pah_opt.registry.default import (
    default_registry,
    default_without,
    reset_default_registry,
    strict_registry,
    using_registry,
)
from pah_opt.registry.describe import describe_optimizer, describe_plugins
from pah_opt.registry.json_schema import recipe_schema
from pah_opt.registry.validate import missing_here, validate

__all__ = [
    "CheckedRecipe",
    "CheckedStep",
    "RegisteredOptimizer",
    "Registry",
    "default_registry",
    "default_without",
    "describe_optimizer",
    "describe_plugins",
    "missing_here",
    "recipe_schema",
    "reset_default_registry",
    "strict_registry",
    "using_registry",
    "validate",
]
