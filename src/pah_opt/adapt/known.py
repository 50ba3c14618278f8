"""A ModelAdapter whose layout was read before modules were wrapped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pah_opt.layout import ModelAdapter

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pah_opt.layout import Layout


class KnownLayout(ModelAdapter):
    """Answers with a layout read earlier; for a model whose layers are wrapped or whose input is replaced meanwhile.

    Args:
        adapter: of the model, for everything else.
        known: its layout.
    """

    def __init__(self, adapter: ModelAdapter, known: Layout) -> None:
        self.name = adapter.name
        self._adapter = adapter
        self._known = known

    def matches(self, model: nn.Module) -> bool:
        """Tell whether the wrapped adapter knows the model."""
        return self._adapter.matches(model)

    def layout(self, model: nn.Module) -> Layout:  # noqa: ARG002  # the whole point
        """Return the layout read earlier."""
        return self._known

    def sync(self, model: nn.Module) -> None:
        """Leave it to the wrapped adapter."""
        self._adapter.sync(model)

    def disagreements(self, model: nn.Module) -> list[str]:
        """Leave it to the wrapped adapter."""
        return self._adapter.disagreements(model)

    def structure(self, model: nn.Module) -> dict[str, Any]:
        """Leave it to the wrapped adapter."""
        return self._adapter.structure(model)

    def rebuild(self, structure: dict[str, Any]) -> nn.Module:
        """Leave it to the wrapped adapter."""
        return self._adapter.rebuild(structure)

    def logits(self, output: Any) -> Tensor:
        """Leave it to the wrapped adapter."""
        return self._adapter.logits(output)
