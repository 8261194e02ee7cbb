"""What evaluations without training begin with: the model in memory, its BOS rule, and the task that is asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from activations.inputs import encode, resolve_bos
from activations.models import LoadedModel, load_model
from activations.texts import Text
from analyses.pretraining.loop import Report
from probes.tasks import get_task
from probes.tasks.items import Item, Task, restricted


def decoder(model_folder: Path, inside: bool = True) -> tuple[LoadedModel, bool]:
    """The model in float32, and whether its texts begin with BOS: they do where its tokenizer has one.

    ``inside`` says that its activations will be read or patched, so that its sites are checked first.

    Raises:
        TwinprobeError: the folder holds no model that can be used, or none that predicts the next token.
    """
    loaded = load_model(str(model_folder), check=inside)
    loaded.require_decoder()
    return loaded, resolve_bos("auto", [loaded.tokenizer])


def task_of(name: str, forms: Sequence[str], data_dir: Path) -> Task:
    """The task called ``name``, in some forms or (without any) in all; the path of ``name:PATH`` is in the data folder.

    Raises:
        TwinprobeError: there is no such task, or it has none of the forms.
    """
    kind, colon, path = name.partition(":")
    task = get_task(f"{kind}:{data_dir / path}" if colon else name)
    return restricted(task, forms) if forms else task


def fitting(loaded: LoadedModel, items: Sequence[Item], bos: bool) -> tuple[list[Item], int]:
    """The items all of whose texts, contrasts too, fit the model's context; and how many do not.

    Models of one family have one tokenizer and one context, so that they keep the same items.
    """
    texts = [
        (number, text)
        for number, item in enumerate(items)
        for form in item.forms.values()
        for text in (form.text, *([form.contrast.text] if form.contrast else []))
    ]
    encoded = encode(loaded.tokenizer, [Text("", text) for _, text in texts], bos, sys.maxsize)
    long = {number for (number, _), one in zip(texts, encoded, strict=True) if len(one) > loaded.context}
    return [item for number, item in enumerate(items) if number not in long], len(long)


def steps(report: Report, what: str) -> Callable[[int, int], None]:
    """Progress of a stage, as the analyses call it: steps done, steps in all."""
    return lambda done, total: report(what, done, total, "")
