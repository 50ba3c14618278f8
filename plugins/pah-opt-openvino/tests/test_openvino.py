"""OpenVINO as a step: the contract, agreement with torch, what is quantized, and what is refused."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from pah_opt_openvino.running import FIXED_SHAPES, Runner, packed, unpacked

import pah_opt
from pah_opt.errors import ArtifactError, RecipeError
from pah_opt.models.engine import engine_call, kept_graph
from pah_opt.testing import PARTNERS, OptimizerContract, tiny_data, tiny_images, tiny_vit


class Narrow(OptimizerContract):
    """Exporting takes seconds: a few layouts and partners stand for the others, in both orders."""

    __test__ = False
    compatible_layouts = ("hf-vit", "timm-vit")
    partners: ClassVar = {name: PARTNERS[name] for name in ("structured-pruning", "bitsandbytes")}

    # Not a test here: the layouts that are left out are not refused, exporting them takes long.
    test_refuses_the_other_layouts = None


class TestOpenVino(Narrow):
    __test__ = True
    optimizer = "openvino"
    parameters: ClassVar = {"threads": 1}


class TestNncf(Narrow):
    __test__ = True
    optimizer = "nncf"
    parameters: ClassVar = {"threads": 1, "images": 8, "batch_size": 4}
    compatible_layouts = ("hf-vit",)
    partners: ClassVar = {"bitsandbytes": PARTNERS["bitsandbytes"]}


def made(model: Any, *steps: pah_opt.Step) -> Any:
    return pah_opt.apply(model, pah_opt.Recipe(steps=steps), tiny_data(), on_collapse="ignore")


def test_the_engine_answers_what_torch_answers() -> None:
    model, images = tiny_vit(), tiny_images(5)
    with torch.inference_mode():
        wanted = model(images).logits
    assert torch.allclose(made(model, pah_opt.Step.of("openvino")).model(images).logits, wanted, atol=1e-4)


def int8_constants(graph: Any) -> list[tuple[int, ...]]:
    constants = [op for op in graph.get_ops() if op.get_type_name() == "Constant"]
    return [tuple(op.get_output_shape(0)) for op in constants if op.get_output_element_type(0).get_type_name() == "i8"]


def test_nncf_quantizes_the_blocks_and_not_the_classifier() -> None:
    artifact = made(tiny_vit(), pah_opt.Step.of("nncf", images=16, batch_size=4))
    int8 = int8_constants(unpacked(kept_graph(artifact.model)))
    assert sum(len(shape) == 2 for shape in int8) == 2 * 6
    assert not any(10 in shape for shape in int8)
    images = tiny_images(20)
    with torch.inference_mode():
        wanted = copy.deepcopy(artifact.model)(images).logits
    change = (artifact.model(images).logits - wanted).abs().max() / wanted.abs().max()
    assert 0 < float(change) < 0.15


def test_integers_of_torchao_stay_integers_in_the_engine() -> None:
    steps = (pah_opt.Step.of("torchao", scheme="int8-dynamic"), pah_opt.Step.of("openvino"))
    call = engine_call(made(tiny_vit(), *steps).model)
    assert call is not None
    assert sum(len(shape) == 2 for shape in int8_constants(call.run._graph)) >= 2 * 6


def test_the_first_sizes_of_batches_get_graphs_of_fixed_shape_and_the_others_share_one() -> None:
    model = tiny_vit()
    run = Runner(unpacked(kept_graph(made(model, pah_opt.Step.of("nncf", images=4, batch_size=4)).model)), threads=1)
    sizes = range(1, FIXED_SHAPES + 3)
    images = tiny_images(max(sizes)).numpy()
    answers = {size: run(images[:size]) for size in sizes}
    fixed = [key for key in run.compiled if key is not None]
    assert [key[0] for key in fixed] == list(sizes)[:FIXED_SHAPES]
    assert all(not run.compiled[key].input(0).get_partial_shape().is_dynamic for key in fixed)
    assert run.compiled[None].input(0).get_partial_shape().is_dynamic
    for size, answer in answers.items():
        assert answer.shape[0] == size
        assert np.allclose(answer[0], answers[1][0], atol=0.05)
        assert np.array_equal(run(images[:size]), answer)


def test_a_damaged_graph_is_refused() -> None:
    graph = kept_graph(made(tiny_vit(), pah_opt.Step.of("nncf", images=4, batch_size=4)).model)
    assert packed(unpacked(graph))[:8] == graph[:8]
    with pytest.raises(ArtifactError, match="damaged"):
        unpacked(graph[:100])


def test_nothing_follows_an_engine() -> None:
    steps = (pah_opt.Step.of("openvino"), pah_opt.Step.of("magnitude-pruning", sparsity=0.5))
    with pytest.raises(RecipeError, match="this order works: magnitude-pruning, openvino"):
        made(tiny_vit(), *steps)


@pytest.mark.parametrize("partner", PARTNERS)
@pytest.mark.parametrize("engine", ["openvino", "nncf"])
def test_every_other_order_is_refused_when_planned(engine: str, partner: str) -> None:
    steps = (pah_opt.Step.of(engine), pah_opt.Step.of(partner, **PARTNERS[partner]))
    with pytest.raises(RecipeError, match=partner):
        pah_opt.plan(tiny_vit(), pah_opt.Recipe(steps=steps))


def test_openvino_needs_nothing_that_its_package_does_not_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from pah_opt import environment

    found = environment.installed_version
    monkeypatch.setattr(environment, "installed_version", lambda name: None if name == "onnxruntime" else found(name))
    assert pah_opt.plan(tiny_vit(), pah_opt.Recipe(steps=[pah_opt.Step.of("openvino")])).steps
