"""``pah-opt adapt``: take a pretrained model to the classes of a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pah_opt.cli._help import examples
from pah_opt.cli._images import image_options
from pah_opt.cli._output import json_option, print_field, print_json
from pah_opt.cli._sources import source_options

if TYPE_CHECKING:
    from pathlib import Path

    from pah_opt.adapt import Adaptation
    from pah_opt.adapt.config import Mode


@click.command(
    epilog=examples(
        "pah-opt adapt --model ./vit --data ./my-images --mode last-layers",
        "pah-opt adapt --mode full --set epochs=5 --set lr=1e-4 --out out/adapted",
    )
)
@source_options(model="google/vit-base-patch16-224", data="uoft-cs/cifar10")
@click.option("--mode", type=click.Choice(["full", "last-layers", "head", "lora"]), default="full", show_default=True,
              help="What is trained: all weights, the last layers, the head, or low-rank additions.")  # fmt: skip
@click.option("--set", "options", multiple=True, metavar="NAME=VALUE",
              help="A setting such as epochs=5, lr=1e-4 or augmentation={flip: true}; may be repeated.")  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False), default="adapted", show_default=True, metavar="FOLDER",
              help="Where the model goes; an interrupted run goes on from what is there.")  # fmt: skip
@click.option("--cache", type=click.Path(file_okay=False), metavar="FOLDER",
              help="Where last-layers keeps hidden states for later runs.")  # fmt: skip
@click.option("--no-cache", is_flag=True, help="Compute the hidden states of last-layers anew in every epoch.")
@click.option("--tensorboard", type=click.Path(file_okay=False), metavar="FOLDER",
              help="Where losses, accuracies and learning rates go for TensorBoard.")  # fmt: skip
@click.option("--device", default="cpu", show_default=True, help="Where the model runs, such as cuda.")
@image_options()
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of everything random.")
@json_option
def command(
    model: str,
    data: str,
    mode: Mode,
    options: tuple[str, ...],
    out: Path,
    cache: str | None,
    no_cache: bool,
    tensorboard: str | None,
    device: str,
    seed: int,
    as_json: bool,
    **choice: Any,
) -> None:
    """Adapt a pretrained model to the classes of a data set, and save it with its processor, figures and curves."""
    from pathlib import Path

    from pah_opt.adapt.adaptation import adapt
    from pah_opt.adapt.config import AdaptConfig
    from pah_opt.data import load_data
    from pah_opt.workflow.loading import Loaded

    if no_cache and cache is not None:
        raise click.UsageError(f"--cache {cache} and --no-cache contradict each other; give one of them")
    settings = _settings(options)
    AdaptConfig.of(mode, settings)  # a wrong setting is found before anything is loaded
    loaded = Loaded.dense(model, device=device, seed=seed)
    images = load_data(data, loaded.processor, seed=seed, **choice)
    result = adapt(
        loaded.model, images, mode, cache=cache or not no_cache, checkpoint=Path(out, "checkpoint"), inplace=True,
        tensorboard=tensorboard, seed=seed, **settings,
    )  # fmt: skip
    _hand_over(result, Path(out), loaded.processor, as_json=as_json)


def _hand_over(result: Adaptation, out: Path, processor: Any, *, as_json: bool) -> None:
    """Write and print in one process, however many have adapted; there is nothing left to go on from."""
    from pah_opt.adapt.processes import Processes
    from pah_opt.adapt.training import forget_checkpoint

    processes = Processes(next(result.model.parameters()).device, "no")
    if processes.is_main:
        drawn = result.save(out, processor)
        if result.config.mode != "head":  # it keeps no state: what is there is another training's
            forget_checkpoint(out / "checkpoint")
        _show(result, str(out), drawn=drawn, as_json=as_json)
    processes.wait()


def _settings(options: tuple[str, ...]) -> dict[str, Any]:
    import yaml

    settings = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:
            raise click.UsageError(f"--set {option!r} has no value; write NAME=VALUE, such as --set epochs=5")
        if name.strip() == "mode":
            raise click.UsageError(f"--set {option!r}: the mode is no setting; write --mode {value.strip() or 'full'}")
        try:
            # YAML 1.1 reads no as false; for mixed_precision it is a word, and its default.
            is_word = (name.strip(), value.strip()) == ("mixed_precision", "no")
            settings[name.strip()] = "no" if is_word else _number(yaml.safe_load(value))
        except yaml.YAMLError as error:
            raise click.UsageError(f"--set {option!r} is no YAML value: {error}") from error
    return settings


def _number(value: Any) -> Any:
    # YAML 1.1 reads 1e-4 as text: it wants 1.0e-4.
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _show(result: Adaptation, out: str, *, drawn: bool, as_json: bool) -> None:
    if as_json:
        print_json(result.to_data())
        return
    print_field("top-1", f"{result.test.accuracy:.2%} of the test images (loss {result.test.loss:.4f})")
    print_field("time", f"{result.seconds:.0f} s, {result.result.steps} updates")
    print_field("trained", f"{result.trained_parameters:,} of {result.parameters:,} parameters")
    print_field("size", f"{result.weights_bytes / 1e6:.2f} MB")
    print_field("stopped", result.result.stopped or "")
    print_field("model", out)
    print_field("curves", "" if drawn else "not drawn: matplotlib is not installed; pip install 'pah-opt[plots]'")
