"""What the commands on contrasts share: which pair, which items in which forms, and a folder of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cli.options import COUNT, PATH, bos_option, json_option, loading_options, model_spec, seed_option
from cli.output import quiet_libraries

if TYPE_CHECKING:
    from activations.models import ModelSpec

Command = TypeVar("Command", bound=Callable[..., Any])

_CONTRASTS = (
    click.option("--pair", default=None, help="A pair of the registry (twinprobe show pairs)."),
    click.option("--base", default=None, help="Instead of --pair: the base model."),
    click.option("--code", default=None, help="Instead of --pair: the code model."),
    click.option("--task", default=None, help="A task (twinprobe show tasks); its test items are used."),
    click.option(
        "--items",
        "items_file",
        type=PATH,
        metavar="FILE",
        help="Instead of --task: JSONL file of your own items (docs/FORMATS.md).",
    ),
    click.option("--form", "forms", multiple=True, help="Form of the task, code or prose; all of them when not given."),
    click.option("--max-prompts", type=COUNT, default=100, show_default=True, help="Prompts run per form."),
)


def contrast_options(command: Command) -> Command:
    """Add the options that say which contrasts of which pair are meant."""
    for option in reversed(_CONTRASTS):
        command = option(command)
    return command


def reading_options(command: Command) -> Command:
    """Add the options that say how the models are loaded and read, and the answer printed."""
    return seed_option(bos_option(loading_options(json_option(command))))


def chosen_models(names: Mapping[str, str], bos: str, loading: dict[str, Any]) -> tuple[dict[str, ModelSpec], bool]:
    """What is to be loaded for each role, and whether texts begin with BOS: one answer for all of them.

    To be called before anything that imports transformers (see :func:`cli.output.quiet_libraries`).
    """
    quiet_libraries(names.values())
    from activations.inputs import resolve_bos
    from activations.models import load_tokenizer

    specs = {role: model_spec(name, None, loading) for role, name in names.items()}
    return specs, resolve_bos(bos, [load_tokenizer(spec) for spec in specs.values()])


def chosen_pair(pair: str | None, base: str | None, code: str | None) -> dict[str, str]:
    """The names of the two models by their roles.

    Raises:
        TwinprobeError: neither or both ways of naming them were used, or it is a pair of encoders.
    """
    from activations.errors import TwinprobeError
    from activations.pairs import get_pair

    if (pair and (base or code)) or (not pair and not (base and code)):
        raise TwinprobeError("give either --pair NAME, or both --base MODEL and --code MODEL")
    if pair:
        found = get_pair(pair)
        if found.kind != "decoder":
            raise TwinprobeError(f"pair {pair!r} is an {found.kind} pair; patching needs causal language models")
        return {"base": found.base, "code": found.code}
    return {"base": str(base), "code": str(code)}


def chosen_items(
    task: str | None, items_file: Path | None, forms: Sequence[str], seed: int
) -> tuple[list[Any], str, list[str]]:
    """The test items, what they are called, and the forms to use.

    Raises:
        TwinprobeError: neither or both of task and file were given, or they can not be patched or lack a form.
    """
    from activations.errors import TwinprobeError
    from probes.tasks import get_task
    from probes.tasks.from_file import read_items

    if (task is None) == (items_file is None):
        raise TwinprobeError("give either --task NAME or --items FILE")
    if items_file:
        items, label = read_items(items_file), items_file.stem
    else:
        chosen = get_task(str(task))
        if not chosen.causal:
            raise TwinprobeError(f"task {task!r} has no answers and contrasts, so it can not be patched")
        items, label = chosen.generate(600, seed), chosen.name
    known = sorted({form for item in items for form in item.forms})
    unknown = [form for form in forms if form not in known]
    if unknown:
        raise TwinprobeError(f"form {unknown[0]!r} is not there; {label} has {', '.join(known)}")
    return [item for item in items if item.split == "test"], label, list(dict.fromkeys(forms)) or known


def check_folder(out: Path, suffixes: Sequence[str]) -> None:
    """Raise TwinprobeError where ``out`` is no folder, or holds files of other kinds than the command writes."""
    from activations.errors import TwinprobeError

    if out.exists() and (not out.is_dir() or any(path.suffix not in suffixes for path in out.iterdir())):
        raise TwinprobeError(f"{out} holds other files; choose another --out")
