"""Items of the generated tasks, drawn once, and the small questions that their tests ask of a form."""

from __future__ import annotations

from functools import cache

from activations.texts import Span
from probes.tasks import TASKS
from probes.tasks.items import Form, Item


@cache
def drawn(task: str, n_items: int = 600, seed: int = 0) -> tuple[Item, ...]:
    """Items of a task; do not change them."""
    return tuple(TASKS[task].generate(n_items, seed))


def holds(code: str, answer: str) -> bool:
    """Whether Python agrees that the unfinished assertion is completed by ``answer``, inside of quotes or not."""
    try:
        exec(code + answer + ('"' if code.endswith('"') else ""), {})
    except AssertionError:
        return False
    return True


def target(form: Form) -> Span:
    """The labelled span at the end of a text that has one."""
    (found,) = [span for span in form.spans if span.label is not None and span.end == len(form.text)]
    return found


def covered(form: Form, role: str) -> list[str]:
    """The words that the spans called ``role`` cover, in order."""
    return [form.text[span.start : span.end] for span in form.spans if span.name == role]
