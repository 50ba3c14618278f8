"""What was saved is what is loaded, in a process that knows nothing of how it was made."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields, replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pah_opt.artifact import Artifact, Examples, load
from pah_opt.artifact.files import CARD, DESCRIPTION, EXAMPLES, MANIFEST, PROCESSOR, REPORT, WEIGHTS
from pah_opt.errors import ArtifactError
from pah_opt.models import find_adapter
from pah_opt.models.narrowing import keep_units
from pah_opt.registry import default_registry
from pah_opt.storage import stored_bytes
from pah_opt.testing import TINY_MODELS, tiny_images, tiny_vit

from .conftest import RECIPE, tiny_artifact


def logits(model: nn.Module) -> Tensor:
    adapter = find_adapter(model, default_registry().adapters)
    with torch.no_grad():
        return adapter.logits(model(tiny_images()))


@pytest.mark.parametrize("family", sorted(TINY_MODELS))
def test_every_family_comes_back_bit_for_bit(family: str, tmp_path: Path) -> None:
    model = TINY_MODELS[family]()
    adapter = find_adapter(model, default_registry().adapters)
    artifact = Artifact(adapter.prepare(model), RECIPE, (), adapter.name)
    again = load(artifact.save(tmp_path / "a"), verify=True)
    assert torch.equal(logits(again.model), logits(model))
    assert adapter.disagreements(again.model) == []
    assert not again.model.training


def test_everything_but_the_model_comes_back_equal(saved: Path) -> None:
    wanted, found = tiny_artifact(), load(saved)
    for field in fields(Artifact):
        if field.name not in ("model", "environment", "examples"):
            assert getattr(found, field.name) == getattr(wanted, field.name), field.name
    assert found.environment["versions"]["torch"] == version("torch")  # torch's own says which CUDA, too
    assert found.seed == 3


def test_an_artifact_that_was_loaded_is_saved_the_same(saved: Path, tmp_path: Path) -> None:
    again = load(saved).save(tmp_path / "again")
    for name in (DESCRIPTION, WEIGHTS, EXAMPLES, PROCESSOR, REPORT, MANIFEST, CARD):
        assert (again / name).read_bytes() == (saved / name).read_bytes(), name


def test_the_files_are_safetensors_json_and_a_card(saved: Path) -> None:
    names = {path.name for path in saved.iterdir()}
    assert names == {DESCRIPTION, WEIGHTS, EXAMPLES, PROCESSOR, REPORT, MANIFEST, CARD}
    for name in (DESCRIPTION, PROCESSOR, REPORT, MANIFEST):
        json.loads((saved / name).read_bytes())


def test_the_weights_file_is_as_large_as_foretold(saved: Path) -> None:
    assert (saved / WEIGHTS).stat().st_size == stored_bytes(load(saved).model)


def test_given_examples_are_kept_and_exact(tmp_path: Path) -> None:
    artifact = tiny_artifact()
    images = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        given = Examples(images, artifact.model(images).logits)
    found = load(replace(artifact, examples=given).save(tmp_path / "a"), verify=True).examples
    assert found is not None
    assert torch.equal(found.pixel_values, given.pixel_values)
    assert torch.equal(found.logits, given.logits)


def test_logits_that_differ_are_found_by_verify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = tiny_artifact()
    images = torch.rand(2, 3, 32, 32)
    given = Examples(images, torch.randn(2, 10))
    monkeypatch.setattr("pah_opt.artifact.saving.current_examples", lambda *_: given)
    path = artifact.save(tmp_path / "a")
    load(path)
    with pytest.raises(ArtifactError, match="other logits than when it was saved"):
        load(path, verify=True)


def test_saving_leaves_the_mode_of_the_model_alone(tmp_path: Path) -> None:
    artifact = tiny_artifact()
    artifact.model.train()
    artifact.save(tmp_path / "a")
    assert artifact.model.training


def test_compressed_weights_come_back_bit_for_bit(compressed: Path) -> None:
    assert torch.equal(logits(load(compressed, verify=True).model), logits(tiny_artifact().model))


def test_compressing_makes_a_smaller_artifact(saved: Path, compressed: Path) -> None:
    def size(folder: Path) -> int:
        return sum(path.stat().st_size for path in folder.iterdir())

    assert size(compressed) < size(saved)


def test_a_compiled_model_is_saved_without_its_wrapper(tmp_path: Path) -> None:
    artifact = tiny_artifact()
    compiled = replace(artifact, model=torch.compile(artifact.model, backend="eager"))
    again = load(compiled.save(tmp_path / "a"), verify=True)
    assert torch.equal(logits(again.model), logits(artifact.model))


FRESH = """
import sys
for name in ("torch_pruning", "datasets", "sklearn"):
    sys.modules[name] = None  # as if it were not installed
import pah_opt, torch
artifact = pah_opt.load(sys.argv[1], verify=True)
generator = torch.Generator().manual_seed(0)
torch.set_num_threads(1)
with torch.no_grad():
    print(artifact.model(torch.randn(2, 3, 32, 32, generator=generator)).logits.double().sum().item().hex())
"""


def test_a_fresh_process_without_training_libraries_gives_the_same_logits(saved: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FRESH, str(saved)], capture_output=True, text=True, check=True)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        wanted = tiny_artifact().model(torch.randn(2, 3, 32, 32, generator=generator)).logits
    assert done.stdout.strip() == wanted.double().sum().item().hex()
    assert done.stderr == ""


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    artifact = tiny_artifact()
    layers = artifact.model.vit.layers
    layers[1].mlp.fc1.weight = layers[0].mlp.fc1.weight
    again = load(artifact.save(tmp_path / "a"), verify=True).model.vit.layers
    assert again[1].mlp.fc1.weight is again[0].mlp.fc1.weight


def test_an_adapter_that_no_plugin_brings_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"ModelAdapter 'hf-vlt'.*did you mean 'hf-vit'"):
        tiny_artifact(adapter="hf-vlt").save(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_step_of_a_missing_plugin_matters_only_if_it_left_a_state(tmp_path: Path) -> None:
    artifact = tiny_artifact()
    gone = replace(artifact.steps[0], use="from-elsewhere")
    load(replace(artifact, steps=(gone,)).save(tmp_path / "a"))
    path = replace(artifact, steps=(replace(gone, state={"layers": 1}),)).save(tmp_path / "b")
    with pytest.raises(ArtifactError, match=r"'from-elsewhere'.*install that plugin"):
        load(path)


@pytest.mark.parametrize("value", [object(), {"a": object()}, float("nan")])
def test_what_is_not_json_is_refused_and_nothing_is_written(value: object, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="JSON"):
        tiny_artifact(report={"value": value}).save(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_achieved_figures_that_are_not_json_are_refused(tmp_path: Path) -> None:
    artifact = tiny_artifact()
    step = replace(artifact.steps[0], achieved={"mask": torch.ones(2)})
    with pytest.raises(ArtifactError, match="achieved"):
        replace(artifact, steps=(step,)).save(tmp_path / "a")


def test_an_artifact_is_replaced_only_when_asked(saved: Path, folder: Path) -> None:
    with pytest.raises(ArtifactError, match="overwrite=True"):
        tiny_artifact().save(folder)
    tiny_artifact(class_names=()).save(folder, overwrite=True)
    assert load(folder).class_names == ()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("name", ["thesis.tex", "model.bin"])
def test_a_folder_that_holds_anything_else_is_never_replaced(folder: Path, name: str) -> None:
    (folder / name).write_text("years of work")
    with pytest.raises(ArtifactError, match=f"not replaced.*{name}"):
        tiny_artifact().save(folder, overwrite=True)
    assert (folder / name).read_text() == "years of work"


def test_a_folder_that_is_no_artifact_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_text("x")
    with pytest.raises(ArtifactError, match="not replaced"):
        tiny_artifact().save(tmp_path, overwrite=True)
    assert (tmp_path / "photo.jpg").exists()


def test_readme_and_licence_may_be_edited(folder: Path) -> None:
    (folder / CARD).write_text("Mine.")
    (folder / "LICENSE").write_text("MIT")
    (folder / ".gitattributes").write_text("*")
    assert load(folder, verify=True).recipe == RECIPE


def test_a_link_to_the_folder_is_followed(folder: Path) -> None:
    link = folder.with_name("latest")
    link.symlink_to(folder, target_is_directory=True)
    load(link)
    tiny_artifact(class_names=()).save(link, overwrite=True)
    assert link.is_symlink()
    assert load(folder).class_names == ()


def test_large_weights_are_mapped_and_can_still_be_trained_without_changing_the_file(tmp_path: Path) -> None:
    model = tiny_vit(hidden=192, mlp=768, heads=3)
    path = Artifact(model, RECIPE, (), "hf-vit").save(tmp_path / "a")
    before = (path / WEIGHTS).read_bytes()
    again = load(path).model
    again(tiny_images()).logits.sum().backward()
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.sub_(parameter.grad)
    assert (path / WEIGHTS).read_bytes() == before
    load(path, verify=True)


@pytest.mark.parametrize("family", ["hf-vit", "hf-deit", "timm-vit"])
def test_uneven_blocks_wider_than_any_model_is_deep_are_loaded(family: str, tmp_path: Path) -> None:
    """Paths such as ``vit.layers.1.mlp.fc1.weight`` were taken for a number of blocks, and 1,000 for too many."""
    model = TINY_MODELS[family](**({"mlp_ratio": 1100 / 32} if family == "timm-vit" else {"mlp": 1100}))
    adapter = find_adapter(model, default_registry().adapters)
    model = adapter.prepare(model)
    keep_units(model, adapter.layout(model).blocks[1].mlp, torch.arange(1000))
    adapter.sync(model)
    path = Artifact(model, RECIPE, (), adapter.name).save(tmp_path / "a")
    assert torch.equal(logits(load(path, verify=True).model), logits(model))


def test_class_names_count_no_blocks(tmp_path: Path) -> None:
    model = tiny_vit(classes=600)
    names = [*(f"c{number}" for number in range(599)), "chess players"]
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: number for number, name in enumerate(names)}
    load(tiny_artifact(model=model, class_names=tuple(names)).save(tmp_path / "a"))


def test_what_a_user_laid_beside_survives_replacing_and_git_is_not_replaced(tmp_path: Path) -> None:
    folder = tiny_artifact().save(tmp_path / "a")
    for name in ("LICENSE", ".gitattributes"):
        (folder / name).write_text("mine", encoding="utf-8")
    tiny_artifact().save(folder, overwrite=True)
    assert [(folder / name).read_text(encoding="utf-8") for name in ("LICENSE", ".gitattributes")] == ["mine"] * 2
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("years of work", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"not replaced.*git"):
        tiny_artifact().save(folder, overwrite=True)
    assert (folder / ".git" / "HEAD").read_text(encoding="utf-8") == "years of work"


def test_a_loaded_model_that_was_changed_is_saved_with_its_own_logits(tmp_path: Path) -> None:
    first = load(tiny_artifact().save(tmp_path / "a"))
    same = load(first.save(tmp_path / "same"), verify=True)
    assert first.examples is not None
    assert same.examples is not None
    assert torch.equal(same.examples.logits, first.examples.logits)
    with torch.no_grad():
        first.model.get_submodule("classifier").get_parameter("weight").mul_(-3)
    again = load(first.save(tmp_path / "b"), verify=True)
    assert again.examples is not None
    assert not torch.equal(again.examples.logits, first.examples.logits)
