"""Every family once, and the adapter that knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest
from torch import Tensor

from pah_opt.models import find_adapter
from pah_opt.models.builtin import pah_opt_model_adapters
from pah_opt.testing import TINY_MODELS, tiny_images

if TYPE_CHECKING:
    from torch import nn

    from pah_opt.layout import Layout
    from pah_opt.models.adapters.base import StructuralAdapter


class Case(NamedTuple):
    """A tiny model, prepared, and its adapter."""

    model: nn.Module
    adapter: StructuralAdapter

    @property
    def layout(self) -> Layout:
        return self.adapter.layout(self.model)

    def logits(self, model: nn.Module | None = None, image: int = 32) -> Tensor:
        return self.adapter.logits((model or self.model)(tiny_images(image=image))).detach()


def case(model: nn.Module) -> Case:
    adapter = find_adapter(model, pah_opt_model_adapters())
    return Case(adapter.prepare(model), adapter)  # type: ignore[arg-type]


@pytest.fixture(params=sorted(TINY_MODELS))
def any_case(request: pytest.FixtureRequest) -> Case:
    """Each family in turn, three blocks deep."""
    return case(TINY_MODELS[request.param](blocks=3))


@pytest.fixture
def make_case() -> object:
    """Make a Case of a model of one's own."""
    return case
