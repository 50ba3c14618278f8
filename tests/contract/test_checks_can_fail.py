"""Every check of the contract fails for a strategy that breaks just that, and says what to do."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import torch
from pydantic import field_validator
from torch import Tensor, nn
from transformers.models.vit.modeling_vit import ViTLayer

from pah_opt import Context, Effect, Needs, Optimizer, OptimizerConfig, Step, Tags, hookimpl
from pah_opt.models import select_linears
from pah_opt.testing import TINY_MODELS, OptimizerContract


class HalveConfig(OptimizerConfig):
    """Parameters of `halve`."""

    share: float = 0.5
    """Share of each row that becomes zero."""


class Halve(Optimizer[HalveConfig]):
    """Set the first weights of every row to zero; sound in every respect."""

    name = "halve"
    config_type: Any = HalveConfig
    summary = "Set the first weights of every row to zero."
    goal = "memory"
    references: ClassVar = ("a table of what can go wrong",)

    def expects(self, config: Any) -> Effect:
        return Effect(zeros_at_least=0.1)

    def apply(self, model: nn.Module, config: Any, context: Context) -> nn.Module:
        layers = select_linears(model, context.adapter.layout(model), skip=("classifier",))
        for layer in layers.values():
            with torch.no_grad():
                layer.weight[:, : int(config.share * layer.in_features)] = 0
        context.record("sparsity", config.share)
        return model


class Undocumented(Halve):
    config_type = HalveConfig


class Nameless(Halve):
    """Says nothing of where it comes from."""

    references = ()


class SilentConfig(OptimizerConfig):
    """One field without a docstring."""

    share: float = 0.5


class Silent(Halve):
    """Takes a parameter that is not described."""

    config_type = SilentConfig


class ForgetfulConfig(HalveConfig):
    """Changes whenever it is read."""

    @field_validator("share")
    @classmethod
    def _smaller(cls, value: float) -> float:
        return value / 2


class Forgetful(Halve):
    """Has a config that does not survive a file."""

    config_type = ForgetfulConfig


class LooseConfig(HalveConfig, extra="ignore"):
    """Takes parameters that it does not have."""


class Loose(Halve):
    """Swallows typing mistakes."""

    config_type = LooseConfig


class NeedsValues(Halve):
    """Looks at values on a dry run."""

    def apply(self, model: nn.Module, config: Any, context: Context) -> nn.Module:
        float(next(model.parameters()).sum())
        return super().apply(model, config, context)


class PlansOther(Halve):
    """Cuts another width on a dry run than it does when it runs."""

    def expects(self, config: Any) -> Effect:
        return Effect(fewer_parameters=True, same_shapes=False)

    def apply(self, model: nn.Module, config: Any, context: Context) -> nn.Module:
        from pah_opt.models.narrowing import keep_units

        for block in context.adapter.layout(model).blocks:
            keep_units(model, block.mlp, range(60 if context.planning else 4))
        context.adapter.sync(model)
        return model


KEPT: list[nn.Module] = []


class Meddles(Halve):
    """Changes a model that it was not given."""

    def apply(self, model: nn.Module, config: Any, context: Context) -> nn.Module:
        for mine in KEPT:
            next(mine.parameters()).data.add_(1)
        return super().apply(model, config, context)


FORWARD = ViTLayer.forward


class PatchesClass(Halve):
    """Replaces a method for all models of that kind, the caller's too."""

    def apply(self, model: nn.Module, config: Any, context: Context) -> nn.Module:
        ViTLayer.forward = torch.no_grad()(FORWARD)  # type: ignore[method-assign]
        return super().apply(model, config, context)


class PromisesNothing(Halve):
    """Does something and promises nothing."""

    def expects(self, config: Any) -> Effect:
        return Effect()


class DoesNothing(Halve):
    """Promises something and does nothing."""

    def apply(self, model: nn.Module, config: Any, context: Context) -> nn.Module:
        return model


class PretendsZeros(Halve):
    """Records zeros that it does not make."""

    def apply(self, model: nn.Module, config: Any, context: Context) -> nn.Module:
        context.record("sparsity", config.share)
        return model


class PretendsRuntime(Halve):
    """Promises another way of computing and leaves it as it was."""

    def expects(self, config: Any) -> Effect:
        return Effect(new_type=True)


class PretendsTraining(Halve):
    """Is there for accuracy and trains nothing."""

    goal = "accuracy"

    def expects(self, config: Any) -> Effect:
        return Effect()

    def apply(self, model: nn.Module, config: Any, context: Context) -> nn.Module:
        return model


class NeedsQuietly(Halve):
    """Says that images are welcome, and fails without them."""

    def needs(self, config: Any) -> Needs:
        return Needs(optional_calibration=True)

    def apply(self, model: nn.Module, config: Any, context: Context) -> nn.Module:
        if not context.planning:
            len(context.calibration)  # type: ignore[arg-type]  # that is what is wrong
        return super().apply(model, config, context)


class NeedsInsideOut(Halve):
    """Finds out on the way that it cannot work in bfloat16."""

    def apply(self, model: nn.Module, config: Any, context: Context) -> nn.Module:
        if not context.planning:
            next(model.parameters()).detach().numpy()
        return super().apply(model, config, context)


class AnnouncesOther(Halve):
    """Announces one type and makes another."""

    def tags(self, config: Any) -> Tags:
        return Tags(provides=frozenset({"dtype:fp16"}))

    def apply(self, model: nn.Module, config: Any, context: Context) -> nn.Module:
        return CastsSilently().apply(model, config, context)


GENERATOR = random.SystemRandom()


class Unseeded(Halve):
    """Draws random numbers that nobody seeds."""

    def apply(self, model: nn.Module, config: Any, context: Context) -> nn.Module:
        model = super().apply(model, config, context)
        if not context.planning:
            next(model.parameters()).data.add_(GENERATOR.random())
        return model


class CastsSilently(Halve):
    """Makes a token bfloat16 and does not say so."""

    def apply(self, model: nn.Module, config: Any, context: Context) -> nn.Module:
        model = super().apply(model, config, context)
        token: Any = next(p for n, p in model.named_parameters() if "cls_token" in n)
        token.data = token.data.to(torch.bfloat16)
        return model


class LeavesHooks(Halve):
    """Watches activations and never stops."""

    def apply(self, model: nn.Module, config: Any, context: Context) -> nn.Module:
        model = super().apply(model, config, context)
        model.register_forward_hook(lambda *_: None)
        return model


class KeepsActivations(Halve):
    """Hangs a hook on a tensor that the hook itself holds: with it the whole graph stays."""

    def apply(self, model: nn.Module, config: Any, context: Context) -> nn.Module:
        if not context.planning:
            weight = torch.ones(3, requires_grad=True) * 2
            weight.register_hook(lambda gradient: gradient * weight)  # type: ignore[no-untyped-call]
        return super().apply(model, config, context)


class LeavesProcessChanged(Halve):
    """Forgets to set a setting of the whole process back."""

    def apply(self, model: nn.Module, config: Any, context: Context) -> nn.Module:
        torch.set_float32_matmul_precision("medium")
        return super().apply(model, config, context)


class HooksEveryModule(Halve):
    """Hooks all modules there are."""

    def apply(self, model: nn.Module, config: Any, context: Context) -> nn.Module:
        nn.modules.module.register_module_forward_hook(lambda *_: None)
        return super().apply(model, config, context)


@pytest.fixture(autouse=True)
def process_as_it_was() -> Iterator[None]:
    precision = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(precision)
    ViTLayer.forward = FORWARD  # type: ignore[method-assign]
    nn.modules.module._global_forward_hooks.clear()


class MixesBatch(Halve):
    """Makes an image's logits depend on its neighbours."""

    def apply(self, model: nn.Module, config: Any, context: Context) -> nn.Module:
        head: Any = model.get_submodule(context.adapter.layout(model).classifiers[0])
        head.__class__ = MeanHead
        return super().apply(model, config, context)


class MeanHead(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # nn.Linear's name
        return super().forward(input - input.mean(dim=0, keepdim=True) * (len(input) > 1))


class OneImageHead(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # nn.Linear's name
        if len(input) % 2 and len(input) > 1:
            raise RuntimeError("odd")
        return super().forward(input)


class EvenOnly(MixesBatch):
    """Makes a model that takes even batches."""

    def apply(self, model: nn.Module, config: Any, context: Context) -> nn.Module:
        model = super().apply(model, config, context)
        model.get_submodule(context.adapter.layout(model).classifiers[0]).__class__ = OneImageHead
        return model


class NotRestored(Halve):
    """Keeps a part of the result in a class that a loaded model does not have."""

    def apply(self, model: nn.Module, config: Any, context: Context) -> nn.Module:
        head: Any = model.get_submodule(context.adapter.layout(model).classifiers[0])
        head.__class__ = DoubledHead
        return super().apply(model, config, context)


class DoubledHead(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # nn.Linear's name
        return 2 * super().forward(input)


class BreaksAfterOthers(Halve):
    """Fails beside a step that changes widths, and does not say so beforehand."""

    def apply(self, model: nn.Module, config: Any, context: Context) -> nn.Module:
        if context.adapter.layout(model).blocks[0].mlp.width != 64 and not context.planning:
            raise RuntimeError("the widths are others")
        return super().apply(model, config, context)


class Stale(Halve):
    """Cuts heads and leaves the config as it was."""

    def apply(self, model: nn.Module, config: Any, context: Context) -> nn.Module:
        model.config.num_attention_heads = 99  # type: ignore[union-attr]
        return super().apply(model, config, context)


CASES: dict[str, tuple[type[Halve], str, str]] = {
    "no docstring": (Undocumented, "test_says_what_it_is", "docstring"),
    "no references": (Nameless, "test_says_what_it_is", "references"),
    "field not described": (Silent, "test_documents_every_parameter", "no docstring"),
    "config does not survive": (Forgetful, "test_config_survives_files", "JSON"),
    "unknown parameter taken": (Loose, "test_names_a_wrong_parameter", "takes what it should refuse"),
    "values on a dry run": (NeedsValues, "test_plans_without_weights", "meta device"),
    "plans something else": (PlansOther, "test_plans_without_weights", "predicts"),
    "changes another model": (Meddles, "test_leaves_the_callers_model_alone", "caller's model"),
    "patches a class": (PatchesClass, "test_leaves_the_callers_model_alone", r"methods \(ViTLayer\.forward\)"),
    "promises nothing": (PromisesNothing, "test_keeps_its_promise", "promises nothing"),
    "does nothing": (DoesNothing, "test_keeps_its_promise", "does not run"),
    "records zeros and makes none": (PretendsZeros, "test_keeps_its_promise", "its weights hold 0.00%"),
    "runtime that runs nothing": (PretendsRuntime, "test_keeps_its_promise", "every module computes as before"),
    "training that trains nothing": (PretendsTraining, "test_keeps_its_promise", "changes no weight"),
    "not seeded": (Unseeded, "test_same_seed_gives_the_same_model", "context.seed"),
    "casts silently": (CastsSilently, "test_keeps_types_and_device", "announce"),
    "announces another type": (AnnouncesOther, "test_keeps_types_and_device", "bf16 and does not announce"),
    "float32 only, unsaid": (NeedsInsideOut, "test_keeps_types_and_device", "bf16 on cpu and then failed"),
    "needs images, unsaid": (NeedsQuietly, "test_says_what_it_needs", "say in needs"),
    "keeps activations": (KeepsActivations, "test_leaves_nothing_behind", "every run leaves tensors in memory"),
    "leaves a setting": (LeavesProcessChanged, "test_leaves_nothing_behind", r"precision\(\) at medium.*set it back"),
    "hooks all modules": (HooksEveryModule, "test_leaves_nothing_behind", "hooks in torch.nn.modules.module"),
    "leaves hooks": (LeavesHooks, "test_leaves_nothing_behind", "hooks"),
    "mixes a batch": (MixesBatch, "test_takes_any_batch", "beside"),
    "even batches only": (EvenOnly, "test_takes_any_batch", "cannot take 3 images"),
    "not restored": (NotRestored, "test_works_on_every_layout", "restore()"),
    "attributes false": (Stale, "test_works_on_every_layout", "does not run"),
    "fails after others": (BreaksAfterOthers, "test_goes_with_other_strategies", "raised|planned"),
    "takes every layout": (Halve, "test_refuses_the_other_layouts", "takes what it should refuse"),
}


def contract_for(kind: type[Halve]) -> OptimizerContract:
    """Return the contract over one strategy that is not installed."""
    broken = kind()

    class Plugin:
        @hookimpl
        def pah_opt_optimizers(self) -> list[Any]:
            return [broken]

    class Contract(OptimizerContract):
        optimizer = broken.name
        compatible_layouts = ("hf-vit",)
        plugin = Plugin()

        def make_model(self, layout: str) -> nn.Module:
            KEPT[:] = [TINY_MODELS[layout]()]
            return KEPT[0]

    return Contract()


ARGUMENTS: dict[str, Any] = {
    "test_works_on_every_layout": "hf-vit",
    "test_goes_with_other_strategies": Step.of("structured-pruning", heads=0.5, mlp=0.5),
}


@pytest.mark.parametrize("case", CASES)
def test_a_broken_strategy_fails_the_check_it_breaks(case: str) -> None:
    kind, check, message = CASES[case]
    arguments = [ARGUMENTS[check]] if check in ARGUMENTS else []
    with pytest.raises(AssertionError, match=message):
        getattr(contract_for(kind), check)(*arguments)


CHECKS = {name for name in vars(OptimizerContract) if name.startswith("test_")}


# Halve works on every layout: that it claims one only is what the table counts on.
@pytest.mark.parametrize("check", sorted(CHECKS - {"test_refuses_the_other_layouts"}))
def test_a_sound_strategy_passes_every_check(check: str) -> None:
    getattr(contract_for(Halve), check)(*([ARGUMENTS[check]] if check in ARGUMENTS else []))


def test_a_stranger_that_is_taken_fails_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    from pah_opt.testing import contract

    monkeypatch.setattr(contract, "STRANGERS", (TINY_MODELS["hf-vit"],))
    with pytest.raises(AssertionError, match="takes what it should refuse"):
        contract_for(Halve).test_refuses_models_it_does_not_know()


def test_every_check_is_in_the_table_of_what_can_fail() -> None:
    assert {check for _, check, _ in CASES.values()} | {"test_refuses_models_it_does_not_know"} == CHECKS
