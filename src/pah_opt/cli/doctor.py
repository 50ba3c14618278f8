"""``pah-opt doctor``: what this machine has, and what to do about what it lacks."""

from __future__ import annotations

from typing import Any

import click

from pah_opt.cli._help import examples
from pah_opt.cli._output import json_option, print_field, print_json, print_table, print_text


@click.command(
    epilog=examples(
        "pah-opt doctor",
        "pah-opt doctor --json",
    )
)
@json_option
def command(as_json: bool) -> None:
    """Show what this machine has, what each strategy can use of it, and remedies."""
    from pah_opt.registry import default_registry
    from pah_opt.report.doctor import diagnose

    found = diagnose(default_registry())
    print_json(found) if as_json else _show(found)


def _show(found: dict[str, Any]) -> None:
    machine = found["machine"]
    memory = machine["memory_bytes"]
    print_field("platform", f"{machine['platform']}, Python {machine['python']}")
    print_field(
        "CPU", f"{machine['cpu']} ({machine['cpu_capability']}), {machine['threads']} of {machine['cpus']} threads"
    )
    if not machine["cpu_bfloat16"]:
        print_field(
            "",
            "no bfloat16 products: mixed_precision stays with float32; models cast to bf16 are many times slower",
        )
    if not machine["cpu_int8"]:
        print_field("", "no int8 products (VNNI): int8-dynamic and int8-static are many times slower than float32")
    print_field("memory", f"{memory / 2**30:.1f} GiB" if memory else "")
    print_field("torch", f"{machine['torch']}, CUDA {machine['cuda'] or 'not built in'}")
    print_field("GPU", "" if found["gpus"] else "none: latency and throughput are measured on the CPU, without energy")
    for gpu in found["gpus"]:
        print_field("GPU", _gpu(gpu))
    click.echo()
    print_table(
        ("strategy", "runs here", "libraries"),
        [(s["name"], "yes" if s["runs_here"] else "no", _libraries(s["libraries"])) for s in found["strategies"]],
    )
    problems = [f"{s['name']}: {obstacle}" for s in found["strategies"] for obstacle in s["obstacles"]]
    problems += [f"{item['for']}: {item['problem']}" for item in found["optional"] if item["problem"]]
    problems += [f"plugin {item['plugin']} was left out: {item['error']}" for item in found["plugins_left_out"]]
    click.echo("\nnothing is missing" if not problems else "\nWhat is missing:")
    for problem in problems:
        print_text(f"- {problem}")


def _gpu(gpu: dict[str, Any]) -> str:
    parts = [gpu["name"], f"{gpu['memory_bytes'] / 2**30:.0f} GiB", f"capability {gpu['capability']}"]
    parts += [f"driver {gpu['driver']}"] if gpu["driver"] else []
    parts += [f"{gpu['other_processes']} other processes on it"] if gpu["other_processes"] else []
    return ", ".join([*parts, f"counters: {gpu['counters']}"])


def _libraries(versions: dict[str, str | None]) -> str:
    return ", ".join(f"{name} {version or 'not installed'}" for name, version in versions.items())
