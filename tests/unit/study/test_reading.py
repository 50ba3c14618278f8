from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
from tests.unit.study.conftest import MINI, study_of

from pah_opt.errors import RecipeError
from pah_opt.study.reading import packaged_studies, read_study

EXAMPLES = Path(__file__).parents[3] / "examples" / "studies"
WRONG = """name: wrong
model: digits
data: digits
adaptations:
  full: {mode: fulll}
sections:
  - title: Rows
    rows:
      - {name: a, steps: [{use: sparsegptt}]}
      - name: b
        steps:
          - use: sparsegpt
            with: {sparsty: 0.5}
priorities: {limits: {top1_drop: {max: 1}}}
measure: {batch_size: [1]}
"""


def test_every_mistake_is_told_at_once_with_its_line_and_the_nearest_name(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(WRONG, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        read_study(path)
    found = {(problem.place.line, problem.nearest) for problem in caught.value.problems}
    assert found == {(5, "full"), (9, "sparsegpt"), (13, "sparsity"), (14, "top1_drop_pp"), (15, "batch_sizes")}
    assert all(problem.place.file == str(path) for problem in caught.value.problems)


def test_a_wrong_key_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(WRONG.replace("sections:", "section:"), encoding="utf-8")
    with pytest.raises(
        RecipeError, match=r"wrong.yaml:6: section: there is no 'section' here.*did you mean 'sections'"
    ):
        read_study(path)


def test_a_study_that_is_not_there_names_the_nearest_that_is() -> None:
    with pytest.raises(RecipeError, match="did you mean 'tiny'"):
        read_study("tyny")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"naive": "fresh-head"}, "version V1"),
        ({"naive": "masked-pruning", "version": "V1"}, "amount"),
        ({"naive": "fresh-head", "version": "V1", "steps": [{"use": "compile"}]}, "either steps or naive"),
        ({"steps": []}, "either steps or naive"),
        ({"against": "rows"}, "did you mean 'row'"),
    ],
)
def test_a_row_that_makes_no_sense_is_refused_in_words(row: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        read_study(study_of({"row": row}))


def test_two_rows_of_one_name_and_a_row_called_dense_are_refused() -> None:
    twice = study_of({"a": {}})
    twice["sections"] *= 2
    with pytest.raises(RecipeError, match="two rows are called 'a'"):
        read_study(twice)
    with pytest.raises(RecipeError, match="names the adapted model itself"):
        read_study(study_of({"dense": {}}))


def test_a_study_that_extends_another_changes_only_what_it_says(tmp_path: Path) -> None:
    import json

    (tmp_path / "base.json").write_text(json.dumps(MINI))
    (tmp_path / "child.yaml").write_text("extends: base.json\nname: child\ntest_limit: 10\n")
    child, base = read_study(tmp_path / "child.yaml"), read_study(MINI)
    assert (child.name, child.test_limit, child.sections) == ("child", 10, base.sections)


def test_changes_replace_fields_and_are_checked_too() -> None:
    assert read_study(MINI, model="./mine", data=None).model == "./mine"
    with pytest.raises(RecipeError, match="test_limit"):
        read_study(MINI, test_limit=1)


def test_defaults_fill_in_what_a_step_does_not_say() -> None:
    data = study_of({"a": {"steps": [{"use": "sparsegpt", "with": {"sparsity": 0.3}}, {"use": "compile"}]}})
    study = read_study({**data, "defaults": {"sparsegpt": {"sparsity": 0.9, "block_size": 64}}})
    steps = study.recipe(next(study.rows()), 7).steps
    assert steps[0].parameters == {"sparsity": 0.3, "block_size": 64}
    assert steps[1].parameters == {}


def test_a_default_of_one_scheme_is_left_out_of_steps_with_another() -> None:
    static = {"use": "torchao", "with": {"scheme": "int8-static"}}
    data = study_of({"dynamic": {"steps": [{"use": "torchao"}]}, "static": {"steps": [static]}})
    study = read_study({**data, "defaults": {"torchao": {"smooth": 0.7, "images": 64, "batch_size": 8}}})
    found = {row.name: study.recipe(row, 0).steps[0].parameters for row in study.rows()}
    assert found["dynamic"] == {"batch_size": 8}
    assert found["static"] == {"scheme": "int8-static", "smooth": 0.7, "images": 64, "batch_size": 8}


def test_a_row_changes_one_nested_default_and_keeps_the_others() -> None:
    qat = {"use": "torchao", "with": {"scheme": "int8-qat", "training": {"lr": 0.001}}}
    data = study_of({"a": {"steps": [qat]}})
    study = read_study({**data, "defaults": {"torchao": {"training": {"steps": 7, "lr": 0.5}}}})
    step = study.recipe(next(study.rows()), 0).steps[0]
    assert step.parameters["training"] == {"steps": 7, "lr": 0.001}


@pytest.mark.parametrize("name", [path.name for path in EXAMPLES.glob("*.yaml")])
def test_the_studies_to_read_are_those_that_come_with_the_library(name: str) -> None:
    packaged = files("pah_opt.study") / "studies" / name
    assert packaged.read_text(encoding="utf-8") == (EXAMPLES / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("source", [*packaged_studies(), *sorted(map(str, EXAMPLES.glob("*.yaml")))])
def test_every_study_that_comes_with_the_project_is_valid_in_both_languages(source: str) -> None:
    study = read_study(source)
    assert {section.topic for section in study.sections} >= {
        "unstructured",
        "structured",
        "quantization",
        "combinations",
    }
    assert all(not isinstance(section.title, str) for section in study.sections)


def test_an_adaptation_without_validation_images_is_refused_beside_others() -> None:
    adaptations = {"full": {}, "tested": {"mode": "last-layers", "validation": 0}}
    with pytest.raises(RecipeError, match=r"the adaptation 'tested' has validation: 0.*leave validation out") as caught:
        read_study({**study_of({"a": {}}), "adaptations": adaptations})
    assert [problem.place.field for problem in caught.value.problems] == ["adaptations.tested"]
    assert read_study({**study_of({"a": {}}), "adaptations": {"only": {"validation": 0}}})


def test_a_wrong_setting_of_an_adaptation_is_named_with_the_adaptation() -> None:
    adaptations = {"long": {"epochs": "five"}}
    with pytest.raises(RecipeError, match=r'adaptations\.long\.epochs: got the text "five"; allowed: whole number'):
        read_study({**study_of({"a": {}}), "adaptations": adaptations})


def test_what_is_no_study_is_refused_with_what_is() -> None:
    with pytest.raises(RecipeError, match=r"a study cannot be read from a list; .*pah_opt\.study\.Study"):
        read_study(["adaptations"])  # type: ignore[arg-type]


def test_a_default_of_no_strategy_is_refused_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"defaults\.magnitude-prunning.*did you mean 'magnitude-pruning'"):
        read_study({**study_of({"a": {}}), "defaults": {"magnitude-prunning": {"sparsity": 0.9}}})


def test_a_negative_seed_is_refused_before_anything_is_trained() -> None:
    with pytest.raises(RecipeError, match="seeds"):
        read_study({**study_of({"a": {}}), "seeds": [-1]})


def test_advice_belongs_to_the_mistake(tmp_path: Path) -> None:
    broken, child = tmp_path / "tiny.yaml", tmp_path / "child.yaml"
    broken.write_text("name: [\n", encoding="utf-8")
    child.write_text("extends: tyny\nname: child\n", encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        read_study(broken)
    assert "give a YAML file" not in str(caught.value)
    with pytest.raises(RecipeError, match="extends names a file") as caught:
        read_study(child)
    assert "one of" not in str(caught.value)
