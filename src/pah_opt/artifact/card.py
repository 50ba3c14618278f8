"""The model card: what an artifact is, how it was made, its figures and its limits; in the hub's form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pah_opt.artifact.description import Description
    from pah_opt.artifact.manifest import Manifest


def model_card(description: Description, manifest: Manifest, report: Mapping[str, Any] | None) -> str:
    """Return the text of ``README.md``."""
    return f"# {description.recipe.name}\n"
