"""The part of the page about each model: words, steps, gates, and a map of its blocks."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from pah_opt.report.explain import explain
from pah_opt.report.markdown import step_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pah_opt.measure.model_report import BlockFigures, ModelReport
    from pah_opt.report.schema import Report


def details(report: Report) -> str:
    """Render a section with a fold-out for each model."""
    words = explain(report)
    shown = [_model(model, report.baseline, words.get(model.id, ())) for model in report.models]
    found = [text for text in shown if text]
    return f"<section>\n<h2>Model by model</h2>\n{''.join(found)}</section>" if found else ""


def _model(model: ModelReport, baseline: ModelReport, words: Sequence[str]) -> str:
    parts = [f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in words)}</ul>" if words else ""]
    parts += [_gates(model), _steps(model), _extra(model), _blocks(model, baseline)]
    inside = "".join(parts)
    is_open = " open" if words else ""
    return f"<details{is_open}><summary>{escape(model.id)}</summary>\n{inside}</details>\n" if inside else ""


def _gates(model: ModelReport) -> str:
    items = "".join(
        f'<li><span class="{gate.verdict}">{gate.verdict}</span> {escape(gate.message)}</li>'
        for gate in model.vs_baseline.gates
    )
    return f"<h3>Gates</h3><ul>{items}</ul>" if items else ""


def _steps(model: ModelReport) -> str:
    rows = step_rows(model)
    return f"<h3>After each step</h3>{table(rows[0], rows[1:])}" if rows else ""


def _extra(model: ModelReport) -> str:
    items = "".join(
        f"<li>{escape(name)}: {escape(f'{item.value:.6g}' if item.value is not None else item.reason or 'unknown')} "
        f"({escape(item.summary)})</li>"
        for name, item in model.extra.items()
    )
    return f"<h3>Figures from plugins</h3><ul>{items}</ul>" if items else ""


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Render a small table; the first column names the rows."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in headers)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(text)}</td>" for text in row[1:])}</tr>'
        for row in rows
    )
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _blocks(model: ModelReport, baseline: ModelReport) -> str:
    """Render the map of blocks: each cell is filled as far as the baseline's share that is left."""
    if not model.blocks:
        return ""
    before = {block.path: block for block in baseline.blocks}
    head = "".join(f'<th scope="col">{name}</th>' for name in ("block", "heads", "MLP width", "stored as", "zeros"))
    rows = "".join(_block_row(block, before.get(block.path)) for block in model.blocks)
    gone = len(baseline.blocks) - len(model.blocks)
    removed = f"<p>{gone} of the baseline's {len(baseline.blocks)} blocks were removed.</p>" if gone > 0 else ""
    return (
        '<h3>Block by block</h3><div class="scroll" tabindex="0"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{removed}"
    )


def _block_row(block: BlockFigures, before: BlockFigures | None) -> str:
    heads, dim, width = (before or block).num_heads, (before or block).head_dim, (before or block).mlp_width
    zeros = block.sparsity_pct
    return (
        f'<tr><th scope="row">{escape(block.path)}</th>'
        + _bar(
            block.num_heads * block.head_dim / (heads * dim), f"{block.num_heads} of {heads} (width {block.head_dim})"
        )
        + _bar(block.mlp_width / width if width else 0, f"{block.mlp_width:,} of {width:,}")
        + f"<td>{escape('/'.join(block.dtypes) or 'nothing')}</td>"
        + ("<td>unknown</td>" if zeros is None else _bar(zeros / 100, f"{zeros:.1f} %"))
        + "</tr>"
    )


def _bar(share: float, text: str) -> str:
    return f'<td class="bar" style="--share:{100 * min(max(share, 0), 1):.0f}%">{escape(text)}</td>'
