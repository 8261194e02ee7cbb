"""The rows of a task's targets in a store: where they are, what is known of them, and a name for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from activations.errors import TwinprobeError
from activations.store import ActivationStore
from activations.texts import Text
from probes.labels import about_rows
from probes.rows import RowLabels, Rows
from probes.tasks import get_task
from probes.tasks.items import Item, Task


@dataclass(frozen=True, eq=False)
class FormRows:
    """The rows of one target in one form.

    Attributes:
        store: holds them.
        rows: their numbers in the store, ``[n]``; ``[n, 2]`` for a relation between two rows.
        about: what is known of them.
        names: of each row, equal in the stores of two models, strings ``[n]``.
    """

    store: ActivationStore
    rows: npt.NDArray[np.int64]
    about: RowLabels
    names: npt.NDArray[np.str_]

    def at(self, site: str) -> Rows:
        """The rows at one site; the two of a relation lie side by side."""
        return rows_at(self.store, site, self.rows, self.about)


def rows_at(store: ActivationStore, site: str, numbers: npt.NDArray[np.int64], about: RowLabels) -> Rows:
    """Rows of a store at one site by their numbers, ``[n]``, or ``[n, 2]`` for two side by side."""
    return Rows(store.read(site, numbers.ravel()).reshape(len(numbers), -1), about)


def labelled_texts(items: Sequence[Item]) -> list[Text]:
    """The texts of all forms of all items, with only the spans that carry a label or that a relation joins."""
    found = []
    for item in items:
        for name, form in item.forms.items():
            joined = {(it.target, *ends) for it in form.relations for ends in (it.first, it.second)}
            text = item.as_text(name)
            kept = (s for s in text.spans if s.label is not None or (s.name, s.start, s.end) in joined)
            found.append(replace(text, spans=tuple(kept)))
    return found


def task_texts(tasks: Sequence[str], n_items: int, seeds: Sequence[int]) -> list[Text]:
    """The labelled texts of several tasks over several draws, each once.

    Raises:
        TwinprobeError: an unknown task, or too few items.
    """
    items = [item for task in map(get_task, tasks) for seed in seeds for item in task.generate(n_items, seed)]
    return labelled_texts(list({item.id: item for item in items}.values()))


def target_rows(store: ActivationStore, task: Task, items: Sequence[Item], target: str) -> dict[str, FormRows]:
    """The rows of a target in every form that has it.

    Raises:
        TwinprobeError: the store lacks texts of the items.
    """
    held = {text.id for text in store.texts}
    absent = next(
        (f"{item.id}/{form}" for item in items for form in item.forms if f"{item.id}/{form}" not in held), None
    )
    if absent is not None:
        raise TwinprobeError(
            f"{store.path} does not hold text {absent!r} of task {task.name!r}; capture it with the same --task, --items, "
            "--seed and --seeds"
        )
    by_id = {item.id: item for item in items}
    read = relation_rows if target in task.relations else form_rows
    return {form: read(store, by_id, task.clusters, target, form) for form in task.targets[target]}


def form_rows(store: ActivationStore, items: Mapping[str, Item], clusters: str, target: str, form: str) -> FormRows:
    """The rows of ``target`` in ``form``; ``clusters`` says what intervals resample, ``item`` or ``group``.

    Rows of items that are not among ``items`` are left out.
    """
    rows = store.rows
    wanted = rows[(rows.span == target) & rows.text.str.endswith(f"/{form}")]
    wanted = wanted[wanted.text.str.removesuffix(f"/{form}").isin(set(items))]
    owners = [items[text.removesuffix(f"/{form}")] for text in wanted.text]
    about = about_rows(
        store,
        wanted,
        items=[owner.id if clusters == "item" else owner.group for owner in owners],
        splits=[owner.split for owner in owners],
        difficulties=[owner.difficulty for owner in owners],
    )
    names = [f"{text}:{start}-{end}" for text, start, end in zip(wanted.text, wanted.start, wanted.end, strict=True)]
    return FormRows(store, wanted.index.to_numpy(), about, np.array(names))


def relation_rows(store: ActivationStore, items: Mapping[str, Item], clusters: str, target: str, form: str) -> FormRows:
    """The pairs of rows that a relation is labelled between; the position baseline sees their distance in tokens."""
    rows = store.rows
    first_row = dict(zip(*np.unique(rows.text.to_numpy(dtype=str), return_index=True), strict=True))
    places = {text.id: {(s.name, s.start, s.end): n for n, s in enumerate(text.spans)} for text in store.texts}
    read = {text: ids.to_numpy() for text, ids in store.inputs.groupby("text", sort=False).token}
    position, token = rows.position.to_numpy(), rows.token.to_numpy()
    found = [
        (item, relation, [first_row[text] + places[text][target, *ends] for ends in (relation.first, relation.second)])
        for item in items.values()
        if form in item.forms
        for text in (f"{item.id}/{form}",)
        for relation in item.forms[form].relations
        if relation.target == target
    ]
    pairs = np.array([pair for *_, pair in found], dtype=np.int64).reshape(-1, 2)
    owners = [item for item, *_ in found]
    ends = position[pairs].max(axis=1).tolist()
    about = RowLabels(
        labels=np.array([relation.label for _, relation, _ in found]),
        controls=np.array([relation.control for _, relation, _ in found]),
        items=np.array([owner.id if clusters == "item" else owner.group for owner in owners]),
        groups=np.array([owner.group for owner in owners]),
        splits=np.array([owner.split for owner in owners]),
        texts=[read[f"{owner.id}/{form}"][: end + 1].tolist() for owner, end in zip(owners, ends, strict=True)],
        tokens=token[pairs].tolist(),
        positions=position[pairs[:, 1]] - position[pairs[:, 0]],
        difficulties=np.array([owner.difficulty for owner in owners]),
    )
    names = ["{}/{}:{}-{}/{}-{}".format(o.id, form, *r.first, *r.second) for o, r, _ in found]
    return FormRows(store, pairs, about, np.array(names))
