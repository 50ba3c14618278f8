"""Files and text that are no recipe: each is a RecipeError with the file and the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from pah_opt import Recipe
from pah_opt.errors import Problem, RecipeError
from pah_opt.recipe.files import MOST_BYTES

GOOD = "name: half\nsteps:\n  - use: torchao\n"


def problems(source: str | Path) -> tuple[Problem, ...]:
    with pytest.raises(RecipeError) as caught:
        Recipe.from_yaml(source)
    return caught.value.problems


def problem(source: str | Path) -> Problem:
    (found,) = problems(source)
    return found


BAD_TEXT = {
    "empty": ("", None, "it is empty"),
    "only a comment": ("# nothing\n", None, "it is empty"),
    "a list": ("- use: torchao\n- use: cast\n", 1, "a recipe is a mapping"),
    "a sentence": ("just some\nwords\n", 1, "a recipe is a mapping"),
    "broken YAML": ("name: half\nsteps: [\n", 3, "not YAML: while parsing a flow"),
    "tabs": ("steps:\n\t- use: torchao\n", 2, "indent with spaces, not tabs"),
    "wrong indentation": ("name: half\n steps: []\n", 2, "not YAML: mapping values are not allowed here"),
    "unclosed quotes": ('name: "half\nsteps: []\n', 3, "not YAML: while scanning a quoted scalar"),
    "an anchor": ("name: half\nsteps: &all\n  - use: torchao\n", 2, "anchors are not allowed (&all)"),
    "an alias": ("a: 1\nb: *a\n", 2, "aliases are not allowed (*a)"),
    "a tag": ("name: half\nsteps: !!python/object/apply:os.system ['true']\n", 2, "tags are not allowed"),
    "a local tag": ("name: !x half\nsteps: []\n", 1, "tags are not allowed (!x)"),
    "a key twice": ("name: a\nsteps: []\nname: b\n", 3, "the key 'name' stands twice, first on line 1"),
    "a key that is a number": ("name: a\n1: b\n", 2, "a key must be text; put it in quotes"),
    "a key that is a list": ("name: a\n? [a]\n: b\n", 2, "a key must be text"),
    "two documents": (GOOD + "---\n" + GOOD, 4, "a second one starts here"),
    "infinity": ("seed: 1\nx: .inf\n", 2, "numbers must be finite, got .inf"),
    "infinity by digits": ("seed: 1\nx: 1e999\n", 2, "numbers must be finite, got 1e999"),
    "not a number": ("seed: 1\nx: .NaN\n", 2, "numbers must be finite, got .NaN"),
    "a number without end": ("seed: 1\nx: " + "9" * 5000 + "\n", 2, "a number has more than 400 digits"),
    "a NUL": ("name: a\nx: \0\n", 2, "not text: the character U+0000 is not allowed"),
    "deep lists": ("a:\n  " + "[" * 50_000, 2, "more than 32 levels"),
    "deep mappings": ("".join(" " * i + "a:\n" for i in range(200)), 33, "more than 32 levels"),
    "many values": ("x:\n" + "- 1\n" * 30_000, 20_000, "more than 20,000 values"),
    "a key twice in JSON": (
        '{\n"name": "a",\n"steps": [],\n"name": "b"}',
        4,
        "the key 'name' stands twice, first on line 2",
    ),
    "deep JSON": ('{"x":\n' + "[" * 50 + "]" * 50 + "}", 2, "more than 32 levels"),
    "very deep JSON": ('{"x":\n' + "[" * 100_000 + "]" * 100_000 + "}", 2, "more than 32 levels"),
    "NaN in JSON": ('{"seed": 1,\n"x": NaN}', 2, "numbers must be finite, got NaN"),
    "infinity in JSON": ('{"seed": 1,\n\n"x": -1e999}', 3, "numbers must be finite, got -1e999"),
    "a number without end in JSON": ('{"seed": 1,\n"x": ' + "9" * 5000 + "}", 2, "a number has more than 400 digits"),
}


@pytest.mark.parametrize("case", BAD_TEXT)
def test_text_that_is_no_recipe_is_refused_with_its_line(case: str) -> None:
    text, line, message = BAD_TEXT[case]
    found = problem(text)
    assert message in found.message
    assert found.place.line == line


@pytest.mark.parametrize("case", BAD_TEXT)
def test_a_file_that_is_no_recipe_is_refused_with_its_name(case: str, tmp_path: Path) -> None:
    text, line, message = BAD_TEXT[case]
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    found = problem(path)
    assert message in found.message
    assert found.place.file == str(path)
    assert str(found).startswith(f"{path}:{line}: " if line else f"{path}: ")


def test_hostile_text_is_refused_at_the_limit_not_at_its_end() -> None:
    """Each stops early; read to the end, they would take minutes or all memory."""
    assert "more than 32 levels" in problem("x:\n  " + "[" * 900_000).message
    assert "more than 32 levels" in problem("x:\n  " + "{a: " * 200_000).message
    assert "anchors are not allowed" in problem("a: &a [x]\n" + "b: [*a, *a]\n" * 70_000).message


def test_a_missing_file_is_named_with_what_to_do() -> None:
    found = problem("no-such-recipe.yaml")
    assert found.place.file == "no-such-recipe.yaml"
    assert "No such file" in found.message
    assert "pah-opt presets" in str(found.remedy)


def test_a_folder_is_named(tmp_path: Path) -> None:
    assert "Is a directory" in problem(tmp_path).message
    assert problem(str(tmp_path)).place.file == str(tmp_path)


def test_a_file_of_50_megabytes_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(50_000_000)
    monkeypatch.setattr(Path, "open", lambda *args, **kwargs: pytest.fail("it was opened"))
    found = problem(path)
    assert found.message == f"the file has 50,000,000 bytes; a recipe has at most {MOST_BYTES:,}"
    assert found.place.file == str(path)


def test_an_endless_device_is_refused() -> None:
    if not Path("/dev/zero").exists():
        pytest.skip("this system has no /dev/zero")
    assert "more than 1,000,000 bytes" in problem(Path("/dev/zero")).message


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "secret.yaml"
    path.write_text(GOOD)
    monkeypatch.setattr(Path, "open", refuse)
    assert problem(path).message == "cannot be read: Permission denied"


def test_bytes_that_are_no_utf8_are_named_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"name: half\ndescription: caf\xe9\n")
    found = problem(path)
    assert found.message == "not UTF-8 text: byte 0xE9"
    assert found.place.line == 2


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(range(256)) * 4)
    assert problem(path).place.file == str(path)


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "windows.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert Recipe.from_yaml(path) == Recipe.from_yaml(GOOD)


@pytest.mark.parametrize(
    "text", [GOOD, '{"steps": [{"use": "torchao"}]}', "steps: [{use: torchao}]", "{steps: [{use: cast}]}"]
)
def test_text_is_told_from_a_path(text: str) -> None:
    assert Recipe.from_yaml(text).steps


def test_a_file_whose_name_looks_like_text_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("{half}.yaml").write_text(GOOD)
    assert Recipe.from_yaml("{half}.yaml").name == "half"


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b", "C:\\recipes\\half.yaml"])
def test_text_that_can_be_no_path_is_refused_by_name(path: str) -> None:
    assert problem(path).message


def test_every_mistake_is_found_at_once_each_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(
        "name: two words\n"
        "sed: 1\n"
        "steps:\n"
        "  - use: torchao\n"
        "    wiht: {scheme: int8}\n"
        "  - with: {ratio: 0.5}\n"
        "  - use: 3\n"
        "gates:\n"
        "  top1_pct: {max: high}\n"
        "  size: {}\n"
    )
    found = {str(p.place).removeprefix(f"{path}:"): p for p in problems(path)}
    assert {place: (p.message, p.nearest) for place, p in found.items()} == {
        "1: name": ('got the text "two words"', None),
        "2: sed": ("there is no 'sed' here", "seed"),
        "5: step 1 (torchao), wiht": ("there is no 'wiht' here", "with"),
        "6: step 2, use": ("'use' is missing", None),
        "7: step 3, use": ("got 3", None),
        "9: gates.top1_pct.max": ('got the text "high"', None),
        "10: gates.size": ("a gate needs max, min or both", None),
    }
    assert found["9: gates.top1_pct.max"].allowed == "number or null"
    assert found["5: step 1 (torchao), wiht"].allowed == "use, with"


@pytest.mark.parametrize(
    ("written", "allowed"), [("'0'", "whole number"), ("1.5", "whole number"), ("true", "whole number")]
)
def test_values_of_another_type_are_not_converted(written: str, allowed: str) -> None:
    found = problem(f"seed: {written}\n{GOOD}")
    assert str(found.allowed).startswith(allowed)
    assert found.place.field == "seed"


def test_lines_are_those_of_each_value() -> None:
    recipe = Recipe.from_yaml(
        "# first\nsteps:\n  - use: a\n  - use: b\n    with:\n      x:\n        - 1\n        - 2\n"
    )
    assert recipe.place("steps", 1).line == 4
    assert recipe.place("steps", 1, "with", "x", 1).line == 8
    assert recipe.place("steps", 1, "with", "missing").line == 5
    assert str(recipe.place("steps", 1, "with", "x", 1)) == "line 8: step 2 (b), with.x[1]"


def test_lines_in_json_are_those_of_each_value() -> None:
    recipe = Recipe.from_json('{\n"steps": [\n{"use": "a",\n"with": {"x": "q\\n\\"{", \n"y": [1,\n2]}}\n]}')
    assert recipe.place("steps", 0, "with", "x").line == 4
    assert recipe.place("steps", 0, "with", "y", 1).line == 6


def test_where_a_recipe_was_written_is_no_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "half.yaml"
    path.write_text("\n\n" + GOOD)
    assert Recipe.from_yaml(path) == Recipe.from_yaml(GOOD)
    assert hash(Recipe.from_yaml(path)) == hash(Recipe.from_yaml(GOOD))
