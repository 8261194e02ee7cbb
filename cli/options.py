"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from activations.models import ModelSpec

Command = TypeVar("Command", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)
COUNT = click.IntRange(min=1)

_LOADING = (
    click.option(
        "--dtype",
        type=click.Choice(["float32", "bfloat16", "float16", "auto"]),
        default="float32",
        show_default=True,
        help="Compute type; auto: the checkpoint's own.",
    ),
    click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:0, mps."),
    click.option("--device-map", default=None, help="Spread a large model over devices, e.g. auto (needs accelerate)."),
    click.option(
        "--attention",
        default="auto",
        show_default=True,
        help="Kernel: sdpa, eager, flash_attention_2; auto: sdpa where the architecture has it, else eager.",
    ),
    click.option(
        "--quantization", type=click.Choice(["8bit", "4bit"]), default=None, help="Load quantised by bitsandbytes."
    ),
    click.option("--allow-pickle", is_flag=True, help="Load pickle weights; they can run code."),
    click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the checkpoint."),
    click.option(
        "--self-check/--no-self-check",
        default=True,
        help="After loading: check shapes at every site, and that patching there changes the output.",
    ),
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
bos_option = click.option(
    "--bos",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Prepend BOS; auto: when every tokenizer involved has one.",
)
seed_option = click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of everything random."
)


def task_options(command: Command) -> Command:
    """Add the options that say which items of which tasks are meant."""
    named = click.option("--task", multiple=True, help="Task (twinprobe show tasks); may be repeated.")
    many = click.option("--items", type=click.IntRange(min=9), default=600, show_default=True, help="Items per draw.")
    return named(many(command))


def loading_options(command: Command) -> Command:
    """Add the options that say how a model is loaded."""
    for option in reversed(_LOADING):
        command = option(command)
    return command


def model_spec(name: str, revision: str | None, loading: dict[str, Any]) -> ModelSpec:
    """The spec that the loading options describe; ``self_check`` is not part of it."""
    from activations.models import ModelSpec

    return ModelSpec(name, revision, **{key: value for key, value in loading.items() if key != "self_check"})
