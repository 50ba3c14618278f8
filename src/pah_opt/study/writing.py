"""The folder of a study's report: ``study.json``, ``report.md`` and ``report.html``, each whole or not at all.

English is always written; another language stands beside it, as ``report.fr.md`` and ``report.fr.html``.
"""

from __future__ import annotations

import json
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from pah_opt.report.files import write
from pah_opt.report.markdown import table as markdown_table
from pah_opt.report.page import page
from pah_opt.study.choice import choose
from pah_opt.study.document import Bullets, Heading, Pairs, Paragraph, Plot, document
from pah_opt.study.messages import LANGUAGES, Observation, Wording
from pah_opt.study.observations import observations
from pah_opt.study.tables import Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from pah_opt.study.document import Block
    from pah_opt.study.messages import Lang, Value
    from pah_opt.study.results import StudyResult


WORDS = 16
"""Cells longer than this hold words and may wrap."""


def write_study(result: StudyResult, folder: str | PathLike[str], lang: Lang = "en") -> Path:
    """Write everything that is rendered of a study.

    Args:
        result: what came out.
        folder: where to write.
        lang: of another report beside the English one; one that is there already is written anew as well.

    Raises:
        MeasurementError: a file cannot be written.
        RecipeError: there is no such language.
    """
    target, asked = Path(folder), Wording(lang).lang
    write(target / "study.json", to_json(result))
    for each in LANGUAGES:
        markdown, page_file = report_files(each)
        if each in (asked, "en") or (target / markdown).exists():
            blocks = document(result, Wording(each))
            write(target / markdown, to_markdown(blocks))
            write(target / page_file, to_html(blocks, each))
    return target


def report_files(lang: Lang) -> tuple[str, str]:
    """Return the names of a report's files in a language."""
    stem = "report" if lang == "en" else f"report.{lang}"
    return f"{stem}.md", f"{stem}.html"


def to_json(result: StudyResult) -> str:
    """Return the results with what was derived of them: observations by key and figures, and the choice."""
    choice = choose(result)
    derived = {
        "observations": [
            {"key": each.key, **{name: _plain(value) for name, value in each.values.items()}}
            for each in observations(result)
        ],
        "choice": {
            "base": result.base,
            "front": [line.name for line in choice.front],
            "pick": choice.pick and choice.pick.name,
            "runner_up": choice.runner_up and choice.runner_up.name,
            "scores": choice.scores,
        },
    }
    return json.dumps({**result.to_data(), **derived}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Value | str | Observation) -> str | float | None:
    if isinstance(value, Observation):
        return value.key
    return value if isinstance(value, str) else value.number


def to_markdown(blocks: Sequence[Block]) -> str:
    """Render blocks as Markdown; plots are left to the page."""
    lines: list[str] = []
    for block in blocks:
        if isinstance(block, Heading):
            lines += [f"{'#' * block.level} {block.text}", ""]
        elif isinstance(block, Paragraph):
            lines += [f"**{block.text}**" if block.strong else f"> {block.text}" if block.note else block.text, ""]
        elif isinstance(block, Bullets):
            lines += [*(f"- {' '.join(item.split())}" for item in block.items), ""]
        elif isinstance(block, Pairs):
            lines += [*(f"- {line}" for line in block.lines), ""]
        elif isinstance(block, Table):
            lines += markdown_table(block.headers, block.rows)
    return "\n".join(lines).rstrip() + "\n"


def to_html(blocks: Sequence[Block], lang: Lang) -> str:
    """Render blocks as one self-contained page: no script, no network; light and dark, phone and desktop."""
    style = (files("pah_opt.study") / "study.css").read_text(encoding="utf-8")
    title = next((block.text for block in blocks if isinstance(block, Heading)), "pah_opt")
    return page(title, _body(blocks), lang=lang, style=style)


def _body(blocks: Sequence[Block]) -> str:
    """Render each block; plots that follow one another share a row."""
    parts: list[str] = []
    for at, block in enumerate(blocks):
        if isinstance(block, Plot):
            starts = not isinstance(blocks[at - 1], Plot)
            ends = at + 1 == len(blocks) or not isinstance(blocks[at + 1], Plot)
            parts.append(f"{'<div class=plots>' if starts else ''}{_plot(block)}{'</div>' if ends else ''}")
        else:
            parts.append(_block(block))
    return "\n".join(parts)


def _block(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{escape(block.text)}</h{block.level}>"
    if isinstance(block, Paragraph):
        kind = ' class="note"' if block.note else ' class="pick"' if block.strong else ""
        return f"<p{kind}>{escape(block.text)}</p>"
    if isinstance(block, Bullets):
        return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in block.items)}</ul>"
    if isinstance(block, Pairs):
        items = "".join(f"<dt>{escape(label)}</dt><dd>{escape(value)}</dd>" for label, value in block.items)
        return f"<dl>{items}</dl>"
    return _table(block) if isinstance(block, Table) else ""


def _plot(plot: Plot) -> str:
    hint = f"<span>{escape(plot.hint)}</span>" if plot.hint else ""
    return f"<figure>\n<figcaption>{escape(plot.title)}{hint}</figcaption>\n{plot.drawing}\n</figure>"


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{_unbroken(title)}</th>' for title in table.headers)
    body = "".join(_row(row, table) for row in table.rows)
    return (
        f'<div class="scroll" tabindex="0"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n'
        "</table></div>"
    )


def _unbroken(title: str) -> str:
    """Keep top-1 in one piece, and a unit on the line of what it measures."""
    return escape(title.replace("-", "\N{NON-BREAKING HYPHEN}").replace(" %", "\N{NO-BREAK SPACE}%"))


def _row(row: Sequence[str], table: Table) -> str:
    kind = ' class="bad"' if row[0] in table.bad else ' class="best"' if row[0] in table.best else ""
    cells = "".join(f"<td{' class=words' if len(cell) > WORDS else ''}>{escape(cell)}</td>" for cell in row[1:])
    return f'<tr{kind}><th scope="row">{escape(row[0])}</th>{cells}</tr>\n'
