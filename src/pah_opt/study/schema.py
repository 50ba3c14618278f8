"""What a study is: frozen data, read from YAML. What its steps mean is checked against the registry, not here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from pah_opt.errors import nearest_name
from pah_opt.recipe import Gate, Recipe, Step
from pah_opt.recipe.schema import NAME_PATTERN
from pah_opt.registry import default_registry

if TYPE_CHECKING:
    from collections.abc import Iterator

DENSE = "dense"
"""Name of the row of an adapted model to which nothing was done."""

Naive = Literal[
    "masked-pruning", "dynamic-int8", "fresh-head", "wrong-normalisation", "labels-out-of-step"
]  # fmt: skip
"""Ways of working by hand that a study reproduces; see :mod:`pah_opt.study.naive`."""
Topic = Literal["adaptation", "unstructured", "structured", "quantization", "combinations", "failures", "other"]
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=60)]


class Part(BaseModel):
    """Base of everything in a study: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, use_attribute_docstrings=True)


class Words(Part):
    """One text in each language."""

    en: str = Field(min_length=1)
    fr: str = Field(min_length=1)


Text = str | Words
"""A text that is the same in every language, or one for each."""


class Row(Part):
    """One way to make the model smaller or faster: a recipe's steps, or a naive tool."""

    name: Name
    """Name in tables and plots; the same in every language."""
    version: Literal["V1", "V2"] = "V2"
    """``V1``: the naive way, shown for comparison and never chosen; ``V2``: this library's."""
    steps: tuple[Step, ...] = ()
    """Steps of a recipe."""
    naive: Naive | None = None
    """A naive tool instead of steps."""
    amount: float | None = Field(default=None, gt=0.0, lt=1.0)
    """``masked-pruning``: share of the weights to remove."""
    against: Name | None = None
    """Row that this one improves on; what changed between the two is said in words."""

    @model_validator(mode="after")
    def _is_one_thing(self) -> Row:
        if bool(self.steps) == (self.naive is not None):
            raise ValueError("a row has either steps or naive")
        if (self.naive == "masked-pruning") != (self.amount is not None):
            raise ValueError("amount belongs to naive: masked-pruning, which needs it")
        if self.naive is not None and self.version != "V1":
            raise ValueError("a naive tool is version V1")
        if self.name == DENSE:
            raise ValueError(f"{DENSE!r} names the adapted model itself; choose another name")
        return self


class Section(Part):
    """Rows that belong together: one table, and what its figures say."""

    title: Text
    topic: Topic = "other"
    """What it is about, which decides what is looked for in its figures."""
    about: Text | None = None
    """What a reader should know before the table."""
    rows: tuple[Row, ...] = Field(min_length=1)


class Weights(Part):
    """What one is ready to pay: points of accuracy for each halving of a cost."""

    size: float = Field(default=1.0, ge=0.0)
    """Worth of halving the file."""
    latency: float = Field(default=1.0, ge=0.0)
    """Worth of halving the latency."""
    energy: float = Field(default=0.0, ge=0.0)
    """Worth of halving the energy of an image, where it can be measured."""
    accuracy: float = Field(default=1.0, ge=0.0)
    """Worth of a percentage point of top-1."""


class Priorities(Part):
    """What the final choice is made by."""

    weights: Weights = Weights()
    limits: dict[str, Gate] = Field(default_factory=lambda: {"top1_drop_pp": Gate(max=1.0)})
    """Limits that a choice must keep, by the name of a figure."""


class Reference(Part):
    """A published figure to stand beside."""

    model: str = Field(min_length=1)
    top1_pct: float = Field(ge=0.0, le=100.0)
    params_millions: float | None = Field(default=None, gt=0.0)
    note: Text | None = None
    source: str = Field(min_length=1)
    """Paper or page."""


class Study(Part):
    """A whole comparison."""

    extends: str | None = None
    """Path of another study, beside this one: what is not said here is taken from there."""
    name: Name = "study"
    title: Text = "Study"
    model: str = "google/vit-base-patch16-224"
    """Hub id or folder of the pretrained model; ``digits`` for the embedded one."""
    data: str = "uoft-cs/cifar10"
    """Hub id or folder of the labelled images; ``digits`` for the embedded ones."""
    train_limit: int | None = Field(default=None, ge=2)
    """At most so many training images."""
    test_limit: int | None = Field(default=None, ge=2)
    """At most so many test images."""
    test_split: str = "test"
    """Name of the split to measure on."""
    test_share: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Hold out this share of the training images where there is no split to measure on."""
    image_column: str | None = None
    """The column of images, where several could be."""
    label_column: str | None = None
    """The column of labels, where several could be."""
    calibration_images: int = Field(default=256, ge=1)
    """Training images that calibrating steps observe."""
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = Field(default=(0,), min_length=1)
    """Every cell runs once with each."""
    measure: dict[str, JsonValue] = Field(default_factory=dict)
    """Changes of the quick measuring settings, such as ``{batch_sizes: [1, 32]}``."""
    adaptations: dict[Name, dict[str, JsonValue]] = Field(min_length=1)
    """Ways to adapt the model to the classes, by name: ``mode`` and its settings, as ``pah-opt adapt`` takes them."""
    bases: Literal["chosen", "all"] = "chosen"
    """Rows run on the ``chosen`` adaptation, or on ``all`` of them."""
    base_tolerance_pp: float = Field(default=0.3, ge=0.0)
    """Adaptations whose accuracy is this close to the best count as equal; the quickest of them is chosen."""
    defaults: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)
    """Parameters for every step of a strategy, by its name, where they do something; a step's own come first, nested
    ones one by one."""
    sections: tuple[Section, ...] = Field(min_length=1)
    priorities: Priorities = Priorities()
    sizes_mb: tuple[float, ...] = (10.0, 25.0, 50.0, 100.0)
    """Room for a file on small devices, for the table of choices by size."""
    references: tuple[Reference, ...] = ()

    @model_validator(mode="after")
    def _names_differ(self) -> Study:
        names = [row.name for row in self.rows()]
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two rows are called {doubled[0]!r}; rows need names of their own")
        for row in self.rows():
            if row.against is not None and row.against not in names:
                nearest = nearest_name(row.against, names)
                hint = f"did you mean {nearest!r}?" if nearest else f"rows: {', '.join(names)}"
                raise ValueError(f"row {row.name!r} is against {row.against!r}, and there is no such row; {hint}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed stands twice in seeds")
        return self

    def rows(self) -> Iterator[Row]:
        """Yield every row, in order."""
        for section in self.sections:
            yield from section.rows

    def steps(self, row: Row) -> tuple[Step, ...]:
        """Return a row's steps with every default of their strategies, whether it does anything there or not."""
        return tuple(
            Step.of(step.use, **filled_in(step.parameters, self.defaults.get(step.use, {}))) for step in row.steps
        )

    def recipe(self, row: Row, seed: int) -> Recipe:
        """Return a row's steps as a recipe, defaults filled in where they do something."""
        filled = zip(row.steps, self.steps(row), strict=True)
        steps = tuple(Step.of(each.use, **_with_effect(own.parameters, each)) for own, each in filled)
        return Recipe(name=row.name, seed=seed, steps=steps)


def _with_effect(own: Mapping[str, Any], step: Step) -> dict[str, Any]:
    """Return a step's own parameters, and of its others those that do something beside them."""
    registered = default_registry().optimizers.get(step.use)
    idle = registered.optimizer.config_type.without_effect(own) if registered else frozenset()
    return {name: value for name, value in step.parameters.items() if name in own or name not in idle}


def filled_in(own: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``own`` with what only ``defaults`` say, in nested mappings too.

    >>> filled_in({"training": {"lr": 0.1}}, {"training": {"lr": 0.2, "steps": 5}, "images": 64})
    {'training': {'lr': 0.1, 'steps': 5}, 'images': 64}
    """
    nested = {
        name: filled_in(own[name], value) for name, value in defaults.items()
        if isinstance(value, Mapping) and isinstance(own.get(name), Mapping)
    }  # fmt: skip
    return {**defaults, **own, **nested}
