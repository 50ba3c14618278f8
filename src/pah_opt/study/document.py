"""The report as blocks in one language; Markdown and HTML are written from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from pah_opt.report import svg
from pah_opt.report.pareto import AxisOf, Point
from pah_opt.report.schema import Curve
from pah_opt.study import tables
from pah_opt.study.choice import GAINS, choose
from pah_opt.study.messages import Value, Wording
from pah_opt.study.observations import observations
from pah_opt.study.verdict import base_reason, place_among, verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pah_opt.study.choice import Choice
    from pah_opt.study.results import AdaptationResult, Line, StudyResult
    from pah_opt.study.tables import Table


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the title."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """A paragraph; ``note`` sets it apart, ``strong`` marks the one sentence to remember."""

    text: str
    note: bool = False
    strong: bool = False


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Plot:
    """A drawing as SVG, for the page only."""

    title: str
    hint: str
    drawing: str


@dataclass(frozen=True)
class Pairs:
    """Labels with values; ``lines`` are the same as whole texts."""

    items: tuple[tuple[str, str], ...]
    lines: tuple[str, ...]


Block: TypeAlias = "Heading | Paragraph | Bullets | Plot | Pairs | Table"


def document(result: StudyResult, wording: Wording) -> list[Block]:
    """Return the whole report in the order in which it is read."""
    choice = choose(result)
    parts = (
        _head(result, wording), _adaptation(result, wording), _sections(result, wording),
        _comparison(result, choice, wording), _choice(result, choice, wording), _others(result, choice, wording),
        _failures(result, wording), _notes(result, wording), _conditions(result, wording),
    )  # fmt: skip
    return [block for part in parts for block in part]


def _head(result: StudyResult, w: Wording) -> Iterator[Block]:
    here = result.conditions
    yield Heading(w.text(result.study.title), 1)
    yield Paragraph(w.say(
        "lead", model=here.model, data=here.data, device=here.device, threads=str(here.threads),
        train=Value("count", here.train_images), test=Value("count", here.test_images), date=here.measured_utc[:10],
    ))  # fmt: skip
    yield Paragraph(w.say("one_image", points=Value("points", 100.0 / max(1, here.test_images))))
    if not result.complete:
        yield Paragraph(w.say("incomplete"), note=True)
    if here.contended:
        yield Paragraph(w.say("contended"), note=True)


def _adaptation(result: StudyResult, w: Wording) -> Iterator[Block]:
    yield Heading(w.say("adaptation_title"))
    yield tables.adaptations(result, w)
    if _stopped(result):
        yield Paragraph(w.say("language_note"))
    for each in base_reason(result):
        yield Paragraph(w.tell(each), strong="name" in each.values)
    pictures = [each for each in result.adaptations if each.curves is not None]
    if pictures:
        told = (w.say("picture", name=each.name, path=each.curves or "") for each in pictures)
        yield Paragraph(w.say("pictures", files="; ".join(told)))
    for found in result.adaptations:
        yield from _training(found, w)


def _stopped(result: StudyResult) -> bool:
    """Tell whether the reason why a training stopped is quoted."""
    return any(each.stopped is not None and each.error is None for each in result.adaptations)


def _training(found: AdaptationResult, w: Wording) -> Iterator[Block]:
    """Draw loss over training, and accuracy over its epochs: on validation images where there are any."""
    if len(found.losses) > 1:
        title = w.say("loss_of", name=found.name)
        x = tuple(100.0 * at / (len(found.losses) - 1) for at in range(len(found.losses)))
        yield _curve(title, Curve(x=x, y=found.losses, x_label=w.say("axis_step"), y_label=w.say("axis_loss")))
    key, tops = "accuracy_of", found.validation_accuracy
    if not tops:
        key, tops = "accuracy_seen_of", found.train_accuracy
    if len(tops) > 1:
        x, y = tuple(float(at + 1) for at in range(len(tops))), tuple(100.0 * top for top in tops)
        curve = Curve(x=x, y=y, x_label=w.say("axis_epoch"), y_label=w.say("axis_top1"))
        yield _curve(w.say(key, name=found.name), curve)


def _curve(title: str, curve: Curve) -> Plot:
    return Plot(title, "", svg.line(curve, title))


def _sections(result: StudyResult, w: Wording) -> Iterator[Block]:
    for section in result.study.sections:
        names = {row.name for row in section.rows}
        lines = [line for line in result.lines() if line.row is None or line.name in names]
        yield Heading(w.text(section.title))
        if section.about is not None:
            yield Paragraph(w.text(section.about))
        yield tables.rows(lines, w)


def _comparison(result: StudyResult, choice: Choice, w: Wording) -> Iterator[Block]:
    yield Heading(w.say("comparison_title"))
    for base in dict.fromkeys(row.base for row in result.rows):
        if result.study.bases == "all":
            yield Heading(base, 3)
        yield tables.rows(result.lines(base), w)
    for axis in choice.axes:
        if drawn := _scatter(result, choice, axis, w):
            yield Plot(w.say(f"plot_{axis}"), w.say("plot_hint"), drawn)
    found = observations(result)
    if found:
        yield Heading(w.say("observations_title"))
        yield Bullets(tuple(w.tell(each) for each in found))


def _scatter(result: StudyResult, choice: Choice, axis: str, w: Wording) -> str:
    """Draw every row that may be chosen; only those that nothing beats are named."""
    fit = [line for line in result.lines() if not line.collapsed and not line.is_naive]
    shown = [point for line in fit if (point := _point(line, axis))]
    if len(shown) < 2:
        return ""
    title = w.say(f"plot_{axis}")
    label = w.say(f"axis_{axis}")
    across = AxisOf((), 1.0, w.say(f"axis_name_{axis}"), label)
    upwards = AxisOf((), 1.0, "top-1", w.say("axis_top1"), higher=True)
    named = frozenset(line.name for line in choice.front)
    return svg.scatter(shown, across, upwards, title=title, named=named)


def _point(line: Line, axis: str) -> Point | None:
    """Place a row: its size in MB, or its latency or energy with the dense model's as 1."""
    gain = 1.0 if line.row is None else getattr(line.figures, GAINS[axis])
    if not gain or line.figures.top1 is None:
        return None
    cost = (line.figures.file_bytes or 0.0) / 1e6 if axis == "size" else 1.0 / gain
    return Point(line.name, cost, 100.0 * line.figures.top1)


def _choice(result: StudyResult, choice: Choice, w: Wording) -> Iterator[Block]:
    yield Heading(w.say("choice_title"))
    for each in verdict(result, choice, w):
        yield Paragraph(w.tell(each), strong=each.key.startswith("pick"))


def _others(result: StudyResult, choice: Choice, w: Wording) -> Iterator[Block]:
    if result.study.references:
        yield Heading(w.say("references_title"))
        yield tables.references(result, choice, w)
        for sentence in place_among(result, choice, w):
            yield Paragraph(sentence)
    if result.study.sizes_mb:
        yield Heading(w.say("sizes_title"))
        yield tables.sizes(result, w)


def _failures(result: StudyResult, w: Wording) -> Iterator[Block]:
    if result.failures:
        yield Heading(w.say("failures_title"))
        if not _stopped(result):
            yield Paragraph(w.say("language_note"))
        yield Bullets(
            tuple(w.say("failed_cell", name=name, error=error) for name, error in result.failures.items())
        )  # fmt: skip


def _notes(result: StudyResult, w: Wording) -> Iterator[Block]:
    """Tell what was noted of the model, what was warned of, and what cannot run here."""
    warned = [(row.name, note) for row in result.rows for note in row.notes]
    told = [*warned, *result.unavailable.items()]
    items = [*result.conditions.notes, *(w.say("named_note", name=name, note=note) for name, note in told)]
    if items:
        yield Heading(w.say("notes_title"))
        if not (result.failures or _stopped(result)):
            yield Paragraph(w.say("language_note"))
        yield Bullets(tuple(dict.fromkeys(items)))


def _conditions(result: StudyResult, w: Wording) -> Iterator[Block]:
    here = result.conditions
    yield Heading(w.say("conditions_title"))
    train, test = Value("count", here.train_images), Value("count", here.test_images)
    items = (
        (w.say("condition_model"), here.model),
        (w.say("condition_data"), w.say("data_words", data=here.data, train=train, test=test)),
        (w.say("condition_device"), w.say("device_words", device=here.device, threads=str(here.threads))),
        (w.say("condition_versions"), ", ".join(f"{name} {version}" for name, version in here.versions.items())),
        (w.say("condition_seeds"), ", ".join(map(str, result.study.seeds))),
        (w.say("condition_date"), here.measured_utc),
    )
    yield Pairs(items, tuple(w.say("pair", label=label, value=value) for label, value in items))
