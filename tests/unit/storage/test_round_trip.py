"""What was written to a weights file comes back into an empty model, bit for bit."""

from __future__ import annotations

import copy
import io
import mmap
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pah_opt.errors import ArtifactError
from pah_opt.storage.fill import fill_model
from pah_opt.storage.index import INDEX_KEY, Index
from pah_opt.storage.reader import WeightsReader
from pah_opt.storage.weights import Weights, header_bytes
from pah_opt.storage.writer import weights_bytes, write_weights

WIDTH = 128
Make = Callable[[], nn.Module]


def mapped(data: bytes) -> mmap.mmap:
    memory = mmap.mmap(-1, len(data))
    memory[:] = data
    return memory


def stored(model: nn.Module) -> WeightsReader:
    file = io.BytesIO()
    write_weights(file, Weights.of(model))
    return WeightsReader(mapped(file.getvalue()), "w.safetensors")


def layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)).eval()


def empty(make: Make) -> nn.Module:
    with torch.device("meta"):
        return make().eval()


def reloaded(model: nn.Module, make: Make) -> nn.Module:
    twin = empty(make)
    fill_model(twin, stored(model), torch.device("cpu"))
    return twin


def assert_same_logits(model: nn.Module, twin: nn.Module) -> None:
    inputs = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(model(inputs), twin(inputs))


@pytest.mark.parametrize("zeros", [0.0, 0.5, 0.95, 1.0])
def test_dense_and_sparse_models_give_the_same_logits(zeros: float) -> None:
    model = layers()
    for layer in (model[0], model[3]):
        layer.weight.data *= torch.rand_like(layer.weight) >= zeros
    twin = reloaded(model, layers)
    assert_same_logits(model, twin)
    assert all(p.requires_grad and p.is_contiguous() for p in twin.parameters())


CONFIGS: dict[str, dict[str, Any]] = {
    "Int8WeightOnlyConfig": {"version": 2},
    "Int8DynamicActivationInt8WeightConfig": {"version": 2},
    "IntxWeightOnlyConfig": {"weight_dtype": torch.int4},
    "Int8DynamicActivationIntxWeightConfig": {"weight_dtype": torch.int4},
    "Float8WeightOnlyConfig": {},
}


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("zeros", [0.0, 0.9])
def test_torchao_models_give_the_same_logits(config: str, zeros: float) -> None:
    model = layers()
    for layer in (model[0], model[3]):
        layer.weight.data *= torch.rand_like(layer.weight) >= zeros
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchao import quantization

        quantization.quantize_(model, getattr(quantization, config)(**CONFIGS[config]))
        twin = reloaded(model, layers)
    assert type(twin[0].weight) is type(model[0].weight)
    assert_same_logits(model, twin)


def bnb_layers(kind: str, *, double: bool = True) -> nn.Module:
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    if kind == "int8":
        layer: nn.Module = Linear8bitLt(WIDTH, WIDTH, has_fp16_weights=False)
    else:
        layer = Linear4bit(WIDTH, WIDTH, quant_type=kind, compress_statistics=double)
    return nn.Sequential(layer, nn.GELU()).eval()


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("used", [True, False])
@pytest.mark.parametrize("kind", ["nf4", "fp4", "int8"])
@pytest.mark.filterwarnings("ignore:MatMul8bitLt:UserWarning")
def test_bitsandbytes_models_give_the_same_logits_before_and_after_their_first_use(
    kind: str, used: bool, double: bool
) -> None:
    """The first forward pass changes where and how the weights are kept."""

    def make() -> nn.Module:
        return bnb_layers(kind, double=double)

    model = make().to("cpu")
    if used:
        with torch.no_grad():
            model(torch.randn(2, WIDTH))
    twin = reloaded(model, make)
    assert_same_logits(model, twin)
    assert_same_logits(model, reloaded(twin, make))
    assert_same_logits(model, copy.deepcopy(reloaded(model, make)))


def test_tied_weights_are_one_tensor_again() -> None:
    model = layers()
    model[3].weight = model[0].weight
    twin = reloaded(model, layers)
    assert twin[3].weight is twin[0].weight
    assert_same_logits(model, twin)


def test_a_module_used_twice_is_stored_once() -> None:
    def make() -> nn.Module:
        layer = nn.Linear(WIDTH, WIDTH)
        return nn.Sequential(layer, nn.GELU(), layer)

    model = make().eval()
    assert len(stored(model).leaves) == 2
    assert_same_logits(model, reloaded(model, make))


def test_parts_that_quantized_tensors_share_are_stored_once() -> None:
    model = nn.Sequential(bnb_layers("nf4"), bnb_layers("nf4")).to("cpu")
    reader = stored(model)
    assert reader.index.parts == {"1.0.weight.nested_code": "0.0.weight.nested_code"} or not reader.index.parts
    twin = empty(lambda: nn.Sequential(bnb_layers("nf4"), bnb_layers("nf4")))
    fill_model(twin, reader, torch.device("cpu"))
    assert_same_logits(model, twin)


def test_buffers_that_state_dicts_leave_out_come_back() -> None:
    def make() -> nn.Module:
        model = layers()
        model.register_buffer("grid", torch.randn(70_000), persistent=False)
        model.register_buffer("count", torch.tensor(3))
        return model

    model = make()
    twin = reloaded(model, make)
    assert torch.equal(twin.grid, model.grid)
    assert torch.equal(twin.count, model.count)


def test_compiled_wrappers_leave_no_trace_in_names() -> None:
    model = layers()
    wrapped = nn.Sequential()
    wrapped.add_module("0", nn.Sequential())
    wrapped[0].add_module("_orig_mod", model)
    assert set(stored(wrapped).leaves) == {f"0.{name}" for name in stored(model).leaves}


def test_large_tensors_are_used_where_they_are_mapped_and_small_ones_copied() -> None:
    model = nn.Linear(512, 512)
    file = io.BytesIO()
    write_weights(file, Weights.of(model))
    memory = mapped(file.getvalue())
    reader = WeightsReader(memory, "w")
    weight, bias = reader.leaf("weight"), reader.leaf("bias")
    assert weight.data_ptr() % 64 == 0
    memory[:] = bytes(len(memory))
    assert not weight.any()
    assert torch.equal(bias, model.bias)


def test_a_deep_copy_of_a_loaded_model_does_not_copy_the_whole_file() -> None:
    model = nn.Linear(512, 512)
    model.register_buffer("large", torch.randn(512, 512))
    twin = reloaded(model, lambda: with_buffer(nn.Linear(512, 512)))
    assert twin.large.untyped_storage().nbytes() == twin.large.nbytes
    assert torch.equal(copy.deepcopy(twin).large, model.large)


def with_buffer(model: nn.Module) -> nn.Module:
    model.register_buffer("large", torch.empty(512, 512))
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH)), r"has unknown 2\.bias"),
        (lambda: nn.Sequential(*layers(), nn.Linear(4, 4)), r"lacks 4\.bias, 4\.weight"),
        (
            lambda: nn.Sequential(nn.Linear(WIDTH, 8), *layers()[1:]),
            r"has shape \(128, 128\) and the model needs \(8, 128\)",
        ),
    ],
)
def test_a_model_of_another_shape_is_refused(make: Make, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        fill_model(empty(make), stored(layers()), torch.device("cpu"))


def test_four_bit_weights_do_not_go_into_an_ordinary_layer() -> None:
    reader = stored(bnb_layers("nf4").to("cpu"))
    with pytest.raises(ArtifactError, match=r"stored for a Linear4bit and its layer is a Linear"):
        fill_model(empty(lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH))), reader, torch.device("cpu"))


def with_index(model: nn.Module, change: Callable[[dict[str, Any]], None]) -> WeightsReader:
    """Write a model, then its header again with a changed index: a file made by somebody with bad intentions."""
    import json

    weights = Weights.of(model)
    data = json.loads(weights.index.to_text())
    change(data)
    content = header_bytes(weights.entries, {INDEX_KEY: json.dumps(data)})
    content += b"".join(bytes(part) for part in list(weights_bytes(weights))[1:])
    return WeightsReader(mapped(content), "w.safetensors")


def sparse_model() -> nn.Sequential:
    model = layers()
    model[0].weight.data *= torch.rand_like(model[0].weight) >= 0.9
    return model


def test_an_index_that_names_entries_that_are_not_there_is_refused() -> None:
    def elsewhere(data: dict[str, Any]) -> None:
        data["encodings"]["../../etc/passwd"] = data["encodings"].pop("0.weight")

    with pytest.raises(ArtifactError, match="does not fit its entries"):
        with_index(sparse_model(), elsewhere)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shape", [2**40]), ("shape", [-1, 5]), ("dtype", "F16"), ("dtype", "pickle"), ("kind", "code"), ("mask", None),
        ("values", {"kind": "dense", "dtype": "F32", "shape": [7]}),
    ],
)  # fmt: skip
def test_an_encoding_that_cannot_be_is_refused(key: str, value: Any) -> None:
    with pytest.raises(ArtifactError):
        with_index(sparse_model(), lambda data: data["encodings"]["0.weight"].update({key: value}))


def test_masks_of_masks_without_end_are_refused() -> None:
    def deep(data: dict[str, Any]) -> None:
        node = {"kind": "dense", "dtype": "U8", "shape": [8]}
        for level in range(1, 7):
            nothing = {"kind": "dense", "dtype": "U8", "shape": [0]}
            node = {"kind": "bitmask", "dtype": "U8", "shape": [8 * 8**level], "mask": node, "values": nothing}
        data["encodings"]["0.weight"] = node

    with pytest.raises(ArtifactError, match="deeper"):
        with_index(sparse_model(), deep)


@pytest.mark.parametrize("section", ["parts", "shared", "quantized", "unknown"])
def test_sharing_with_what_is_not_there_is_refused(section: str) -> None:
    def change(data: dict[str, Any]) -> None:
        part = {"kind": "exec", "parts": [], "type": "os.system", "attributes": {}}
        data[section] = {"0.bias": part if section == "quantized" else "nowhere"}

    with pytest.raises(ArtifactError):
        fill_model(empty(layers), with_index(layers(), change), torch.device("cpu"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("type", "NoSuchTensor"), ("type", "Float8MMConfig"), ("parts", ["qdata"]), ("attributes", {}),
        ("attributes", {"block_size": {"record": "os.system", "fields": {"command": "true"}}}),
        ("attributes", {"block_size": {"dtype": "load"}}), ("attributes", {"block_size": {"enum": "__class__"}}),
        ("attributes", {"block_size": {"record": "KernelPreference", "fields": 3}}),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_a_quantized_tensor_described_wrongly_is_refused(name: str, value: Any) -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model = layers()
    quantize_(model, Int8WeightOnlyConfig(version=2))

    def fill() -> None:
        reader = with_index(model, lambda data: data["quantized"]["0.weight"].update({name: value}))
        fill_model(empty(layers), reader, torch.device("cpu"))

    with pytest.raises(ArtifactError):
        fill()


@pytest.mark.parametrize(
    ("name", "value"), [("shape", {"tuple": [WIDTH, 2 * WIDTH]}), ("blocksize", 1), ("blocksize", 0)]
)
def test_four_bit_blocks_that_kernels_would_read_past_are_refused(name: str, value: Any) -> None:
    reader = with_index(
        bnb_layers("nf4").to("cpu"), lambda data: data["quantized"]["0.weight"]["attributes"].update({name: value})
    )
    with pytest.raises(ArtifactError):
        fill_model(empty(lambda: bnb_layers("nf4")), reader, torch.device("cpu"))


def test_an_index_says_nothing_about_plain_tensors() -> None:
    assert Weights.of(layers()).index == Index()
    assert Index().to_text() == "{}"
