"""``pah-opt plan``: what a recipe would do to a model, without its weights."""

from __future__ import annotations

import click

from pah_opt.cli._help import complete_recipes, examples
from pah_opt.cli._output import json_option, print_json, print_table, print_text
from pah_opt.cli._recipes import checked


@click.command(
    epilog=examples(
        "pah-opt plan balanced",
        "pah-opt plan recipe.yaml --model ./my-vit --no-data",
    )
)
@click.argument("recipe", shell_complete=complete_recipes)
@click.option("--model", "source", default="google/vit-base-patch16-224", show_default=True, metavar="ID_OR_PATH",
              help="A hub id, a local folder or digits; only its config is read.")  # fmt: skip
@click.option("--no-data", is_flag=True, help="Plan for a run without calibration and training images.")
@json_option
def command(recipe: str, source: str, no_data: bool, as_json: bool) -> None:
    """Predict what each step of RECIPE would leave, and find every mistake, without weights."""
    checked_recipe = checked(recipe, calibration=not no_data, training=not no_data, fresh=True)
    # Only now: building the model takes seconds, and a misspelt recipe should not wait for it.
    import pah_opt
    from pah_opt.report.explain import told_by
    from pah_opt.workflow import empty_model

    plan = pah_opt.plan(empty_model(source), checked_recipe, calibration=not no_data, training=not no_data)
    if as_json:
        print_json(plan.to_data())
        return
    rows = [("before", plan.before), *((f"{i}. {step.use}", step.figures) for i, step in enumerate(plan.steps, 1))]
    print_table(
        ("after", "parameters", "MACs", "in memory"),
        [(name, f"{f.params:,}", f"{f.macs:,}", f"{f.weights_bytes / 1e6:.2f} MB") for name, f in rows],
    )
    for number, step in enumerate(plan.steps, 1):
        for told in told_by(step.notes):
            click.echo()
            print_text(f"{number}. {step.use}: {told}.")
