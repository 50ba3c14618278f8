"""``pah-opt study``: a whole comparison as data, cached, resumable, with one report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from pah_opt.cli._help import examples
from pah_opt.cli._output import json_option, print_field, print_json, print_table, print_text

if TYPE_CHECKING:
    from pah_opt.study import Study, StudyResult


@click.command(
    epilog=examples(
        "pah-opt study tiny",
        "pah-opt study study.yaml --dry-run",
        'pah-opt study study.yaml --only "int8-*" --out out/study',
    )
)
@click.argument("study", metavar="STUDY")
@click.option("--out", type=click.Path(file_okay=False), default="out/study", show_default=True, metavar="FOLDER",
              help="Where finished cells and the report go; an interrupted study goes on from there.")  # fmt: skip
@click.option("--only", multiple=True, metavar="GLOB",
              help="Run only rows whose name matches, such as 'sparse-*'; may be given several times.")  # fmt: skip
@click.option("--lang", type=click.Choice(["en", "fr"]), default="en", show_default=True,
              help="Language of the report.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Check the study and list its cells; run nothing.")
@click.option("--model", metavar="ID_OR_PATH", help="Another model than the study's.")
@click.option("--data", metavar="ID_OR_PATH", help="Other images than the study's.")
@click.option("--train-limit", type=click.IntRange(2), metavar="N", help="At most so many training images.")
@click.option("--test-limit", type=click.IntRange(2), metavar="N", help="At most so many test images.")
@click.option("--device", default="cpu", show_default=True, help="Where models run, such as cuda.")
@json_option
def command(
    study: str,
    out: str,
    only: tuple[str, ...],
    lang: Literal["en", "fr"],
    dry_run: bool,
    model: str | None,
    data: str | None,
    train_limit: int | None,
    test_limit: int | None,
    device: str,
    as_json: bool,
) -> None:
    """Run STUDY (a YAML or JSON file, or 'tiny'): adaptations, recipes and seeds, what is finished not again."""
    from pah_opt.study import read_study, run_study

    asked = read_study(study, model=model, data=data, train_limit=train_limit, test_limit=test_limit)
    if dry_run:
        _show_plan(asked, only, as_json=as_json)
        return
    result = run_study(asked, out, only=only, lang=lang, device=device)
    _show(result, out, as_json=as_json)
    if result.failures:
        click.get_current_context().exit(1)


def _show_plan(study: Study, only: tuple[str, ...], *, as_json: bool) -> None:
    from pah_opt.study import planned_cells

    cells = planned_cells(study, only)
    if as_json:
        print_json([cell._asdict() for cell in cells])
        return
    print_field("model", study.model)
    print_field("data", study.data)
    print_table(("cell", "name", "seed", "what"), [(c.kind, c.name, str(c.seed), c.what) for c in cells])
    print_text(f"{len(cells)} cells; finished ones are not run again")


def _show(result: StudyResult, out: str, *, as_json: bool) -> None:
    """Print the comparison and the pick, and where the whole report is."""
    from pah_opt.study.choice import choose
    from pah_opt.study.messages import Wording
    from pah_opt.study.tables import rows

    if as_json:
        print_json(result.to_data())
    else:
        table = rows(result.lines(), Wording("en"))
        keep = [at for at, title in enumerate(table.headers) if title not in ("version", "seconds to make", "remark")]
        print_table([table.headers[at] for at in keep], [[row[at] for at in keep] for row in table.rows])
        pick = choose(result).pick
        print_field("base", result.base or "none")
        print_field("pick", "none keeps the limits" if pick is None else pick.name)
        print_field("computed", f"{result.computed} cells; the others were there")
    click.echo(f"written to {out}: study.json, report.md, report.html", err=True)
    for name, error in result.failures.items():
        click.echo(f"{name} failed: {error}", err=True)
