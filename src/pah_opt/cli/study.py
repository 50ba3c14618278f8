"""``pah-opt study``: a whole comparison as data, cached, resumable, with one report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pah_opt.cli._help import examples
from pah_opt.cli._images import image_options
from pah_opt.cli._output import json_option, print_field, print_json, print_table, print_text

if TYPE_CHECKING:
    from pah_opt.study import Study, StudyResult
    from pah_opt.study.messages import Lang

SCALES = {"tiny": "tiny", "medium": "cifar10-vit-s", "full": "cifar10-vit-b"}
"""Studies that come with the library, by how much they take."""


@click.command(
    epilog=examples(
        "pah-opt study --scale tiny",
        "pah-opt study study.yaml --dry-run",
        'pah-opt study study.yaml --only "int8-*" --out out/study',
    )
)
@click.argument("study", metavar="[STUDY]", required=False)
@click.option("--scale", type=click.Choice(list(SCALES)),
              help="Instead of STUDY, the study of this project: 'tiny' on the embedded model and images (minutes on a "
              "CPU), 'medium' on CIFAR-10 with a ViT-S (hours on two cores), 'full' with ViT-B (one GPU).")  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False), default="out/study", show_default=True, metavar="FOLDER",
              help="Where finished cells and the report go; an interrupted study goes on from there.")  # fmt: skip
@click.option("--only", multiple=True, metavar="GLOB",
              help="Run only rows whose name matches, such as 'sparse-*'; may be given several times.")  # fmt: skip
@click.option("--lang", type=click.Choice(["en", "fr"]), default="en", show_default=True,
              help="'fr' writes the report in French too, beside the English one.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Check the study and list its cells; run nothing.")
@click.option("--model", metavar="ID_OR_PATH", help="Another model than the study's.")
@click.option("--data", metavar="ID_OR_PATH", help="Other images than the study's.")
@image_options(test_split=None, least=2)
@click.option("--device", default="cpu", show_default=True, help="Where models run, such as cuda.")
@json_option
def command(
    study: str | None,
    scale: str | None,
    out: str,
    only: tuple[str, ...],
    lang: Lang,
    dry_run: bool,
    model: str | None,
    data: str | None,
    device: str,
    as_json: bool,
    **choice: Any,
) -> None:
    """Run STUDY: adaptations, recipes and seeds, what is finished not again.

    STUDY is a YAML or JSON file, or the name of a study that comes with the library.
    """
    from pah_opt.study import read_study, run_study

    source = _source(study, scale)
    asked = read_study(source, model=model, data=data, **choice)
    if dry_run:
        _show_plan(asked, only, as_json=as_json)
        return
    result = run_study(asked, out, only=only, lang=lang, device=device)
    _show(result, out, lang, as_json=as_json)
    if result.failures:
        click.get_current_context().exit(1)


def _source(study: str | None, scale: str | None) -> str:
    """Return which study is asked for: by STUDY or by --scale."""
    if (study is None) == (scale is None):
        given = "neither is given" if study is None else f"{study!r} and --scale {scale} are given"
        raise click.UsageError(f"give either STUDY or --scale ({', '.join(SCALES)}); {given}")
    return study or SCALES[scale or ""]


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


def _show(result: StudyResult, out: str, lang: Lang, *, as_json: bool) -> None:
    """Print the comparison and the pick, and where the whole report is."""
    from pah_opt.study.choice import choose
    from pah_opt.study.messages import Wording
    from pah_opt.study.tables import rows
    from pah_opt.study.writing import report_files

    if as_json:
        print_json(result.to_data())
    else:
        table = rows(result.lines(), Wording("en"))
        keep = [at for at, title in enumerate(table.headers) if title not in ("version", "seconds to make", "remark")]
        print_table([table.headers[at] for at in keep], [[row[at] for at in keep] for row in table.rows])
        choice = choose(result)
        none = "none keeps the limits" if choice.candidates else "no row has figures to compare"
        print_field("base", result.base or "none")
        print_field("pick", none if choice.pick is None else choice.pick.name)
        print_field("computed", f"{result.computed} cells; the others were there")
    written = ["study.json", *report_files("en"), *(report_files(lang) if lang != "en" else ())]
    click.echo(f"written to {out}: {', '.join(written)}", err=True)
    for name, reason in result.unavailable.items():
        click.echo(f"{name} is not available here: {reason}", err=True)
    for name, error in result.failures.items():
        click.echo(f"{name} failed: {error}", err=True)
