from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from pah_opt.errors import UnsupportedModelError
from pah_opt.layout import ModelAdapter
from pah_opt.models.positions import interpolated, size_problems
from pah_opt.testing import tiny_dinov2, tiny_images, tiny_torchvision_vit, tiny_vit

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Case


def test_the_same_grid_gives_the_same_embeddings_up_to_rounding() -> None:
    table = torch.randn(1, 1 + 12, 8)
    torch.testing.assert_close(interpolated(table, (3, 4), (3, 4), prefix=1), table)


def test_prefix_embeddings_stay_and_constant_ones_stay_constant() -> None:
    table = torch.cat((torch.randn(1, 2, 8), torch.full((1, 16, 8), 3.0)), dim=1)
    new = interpolated(table, (4, 4), (2, 6), prefix=2)
    assert new.shape == (1, 2 + 12, 8)
    assert torch.equal(new[:, :2], table[:, :2])
    torch.testing.assert_close(new[:, 2:], torch.full((1, 12, 8), 3.0))


def test_rows_and_columns_are_not_swapped() -> None:
    rows = torch.arange(4.0).repeat_interleave(4)
    new = interpolated(rows.reshape(1, 16, 1), (4, 4), (2, 4), prefix=0).reshape(2, 4)
    assert torch.allclose(new, new[:, :1].expand(2, 4))
    assert new[0, 0] < new[1, 0]


def test_half_precision_is_interpolated_in_float32() -> None:
    table = torch.randn(1, 17, 8)
    half = interpolated(table.bfloat16(), (4, 4), (2, 2), prefix=1)
    wanted = interpolated(table.bfloat16().float(), (4, 4), (2, 2), prefix=1).bfloat16()
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, wanted)


def test_resizing_gives_what_interpolating_in_the_forward_pass_gives(make_case: Callable[..., Case]) -> None:
    model = tiny_vit()
    at_run_time = model(tiny_images(image=16), interpolate_pos_encoding=True).logits
    found = make_case(model)
    found.adapter.resize(model, 16, 16)
    torch.testing.assert_close(found.logits(image=16), at_run_time)


@pytest.mark.parametrize("registers", [0, 2])
@pytest.mark.parametrize("side", [48, 16])
def test_resizing_bakes_the_interpolation_of_dinov2(make_case: Callable[..., Case], registers: int, side: int) -> None:
    model = tiny_dinov2(registers=registers)
    with torch.no_grad():
        model.base_model.embeddings.position_embeddings.normal_()
    at_run_time = model(tiny_images(image=side)).logits
    found = make_case(model)
    found.adapter.resize(model, side, side)
    assert model.base_model.embeddings.position_embeddings.shape == (1, 1 + (side // 8) ** 2, 32)
    torch.testing.assert_close(found.logits(image=side), at_run_time)


def test_every_family_takes_another_size_and_all_attributes_say_so(any_case: Case) -> None:
    any_case.adapter.resize(any_case.model, 24, 24)
    assert any_case.layout.image_size == (24, 24)
    assert any_case.adapter.disagreements(any_case.model) == []
    assert any_case.logits(image=24).shape == (2, 10)


def test_resizing_works_without_values(any_case: Case) -> None:
    any_case.model.to("meta")
    any_case.adapter.resize(any_case.model, 16, 16)
    assert any_case.layout.image_size == (16, 16)


def test_vit_takes_images_that_are_not_square(make_case: Callable[..., Case]) -> None:
    found = make_case(tiny_vit())
    found.adapter.resize(found.model, 16, 40)
    assert found.layout.image_size == (16, 40)
    assert found.model.config.image_size == [16, 40]
    assert found.model(torch.zeros(1, 3, 16, 40)).logits.shape == (1, 10)


@pytest.mark.parametrize("model", [tiny_torchvision_vit(), tiny_dinov2()])
def test_families_that_need_square_images_say_so_and_stay_as_they_were(
    model: object, make_case: Callable[..., Case]
) -> None:
    found = make_case(model)
    with pytest.raises(UnsupportedModelError, match="square"):
        found.adapter.resize(found.model, 16, 32)
    assert found.layout.image_size == (32, 32)
    assert found.adapter.disagreements(found.model) == []


@pytest.mark.parametrize(("size", "message"), [((30, 32), "height 30 .* patch of 8 pixels; the nearest is 32"),
                                               ((32, 4), "width 4 .* the nearest is 8"),
                                               ((0, 32), "height 0"), ((-8, 32), "height -8")])  # fmt: skip
def test_a_size_that_is_no_multiple_of_the_patch_is_refused(
    size: tuple[int, int], message: str, make_case: Callable[..., Case]
) -> None:
    found = make_case(tiny_vit())
    with pytest.raises(UnsupportedModelError, match=message):
        found.adapter.resize(found.model, *size)
    assert size_problems(found.layout, (64, 8)) == []


def test_an_adapter_without_resizing_says_that_the_size_is_fixed() -> None:
    class Fixed(ModelAdapter):
        name = "fixed"
        matches = layout = sync = disagreements = structure = rebuild = None  # type: ignore[assignment]

    with pytest.raises(UnsupportedModelError, match="'fixed' have a fixed input size"):
        Fixed().resize(tiny_vit(), 16, 16)
