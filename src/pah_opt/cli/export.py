"""``pah-opt export``: an artifact in the form of another runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pah_opt.cli._help import examples
from pah_opt.cli._output import json_option, print_field, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pah_opt.export import Exported


@click.command(
    epilog=examples(
        "pah-opt export out/artifacts/int8 --to onnx",
        "pah-opt export out/artifacts/int8 --to openvino --check",
        "pah-opt export ./int8 --to onnx --layout triton --name vit --out models",
    )
)
@click.argument("artifact")
@click.option("--to", "targets", multiple=True, required=True, metavar="TARGET", help="Form to export to; repeatable.")
@click.option(
    "--out", metavar="FOLDER", type=click.Path(path_type=Path),
    help="Where to; ARTIFACT-TARGET by default. With several targets, each gets a folder of its name in it.",
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace an exported model that is there.")
@click.option("--layout", type=click.Choice(("plain", "triton")), default="plain", show_default=True,
              help="A folder, or a model repository of Triton Inference Server.")  # fmt: skip
@click.option("--name", metavar="NAME", help="Of the model in Triton's repository.")
@click.option("--max-batch", type=int, default=64, show_default=True, help="The most images Triton puts together.")
@click.option("--check", "only_check", is_flag=True, help="Say what stands in the way, and write nothing.")
@json_option
def command(
    artifact: str, targets: tuple[str, ...], out: Path | None, overwrite: bool, layout: str, name: str | None,
    max_batch: int, only_check: bool, as_json: bool,
) -> None:  # fmt: skip
    """Export an artifact to onnx, openvino, torch-export, aoti or transformers, and prove that it answers the same."""
    if only_check:
        _check(artifact, targets, as_json=as_json)
        return
    from pah_opt.export import export_all
    from pah_opt.export.triton import Repository

    repository = Repository(layout, name, max_batch)  # type: ignore[arg-type]  # click allows no other layouts
    done = export_all(artifact, targets, _folders(artifact, targets, out), repository, overwrite=overwrite)
    if as_json:
        print_json([one.to_data() for one in done])
        return
    _show(done)


def _folders(artifact: str, targets: Sequence[str], out: Path | None) -> dict[str, Path]:
    if out is not None:
        return {target: out / target if len(targets) > 1 else out for target in targets}
    from pah_opt.export.exporting import folder_beside

    # A name on the hub has no folder here to be put beside.
    base = Path(artifact) if Path(artifact).is_dir() else Path(Path(artifact).name)
    return {target: folder_beside(base, target) for target in targets}


def _check(artifact: str, targets: Sequence[str], *, as_json: bool) -> None:
    """Print what stands in each target's way; exit status 2 when something does."""
    from pah_opt.export import check

    found = {target: [str(problem) for problem in check(artifact, target)] for target in targets}
    if as_json:
        print_json(found)
    else:
        print_table(("target", "what stands in the way"), [(t, "\n".join(p) or "nothing") for t, p in found.items()])
    if any(found.values()):
        click.get_current_context().exit(2)


def _show(done: Sequence[Exported]) -> None:
    for one in done:
        made = one.manifest
        print_field("target", made.target)
        print_field("folder", str(one.folder))
        print_field("size", f"{one.total_bytes / 1e6:.2f} MB")
        print_field("computes in", made.computes)
        print_field("integers", ", ".join(f"{count} {name}" for name, count in made.operators.items()) or "none")
        print_field("largest difference", f"{made.difference:.2g} of the largest logit; {made.tolerance:g} is allowed")
        print_field(
            "same class", f"{made.top1_agreement:.0%} of {made.images} images, batches of {_sizes(made.batch_sizes)}"
        )
        print_field("notes", "; ".join(made.notes))
        print_field("TensorRT", "; ".join(made.tensorrt or ()))
        click.echo()


def _sizes(sizes: Sequence[int]) -> str:
    return ", ".join(map(str, sizes))
