"""Syntax of the user's own source files, in as many languages as the folder has: ``syntax:FOLDER``.

Every language is a form, so that transfer between forms asks whether what a probe reads in one language it reads in
another. The targets are those of the syntax task, in the words that :mod:`probes.tasks.grammars` lists: ``node`` is the
role of a name, ``parent`` the kind of the node above it, ``depth`` how many nodes with a kind are above it in its
statement, ``siblings`` how many children of its parent come before it. As there, each name is drawn with a rival, the
same name under another label, and the control key is the name itself.

A language takes part when it has :data:`FEWEST_FILES` files and :data:`FEWEST_TEXTS` texts, a label when every language
has it in :data:`COMMON` texts and in :data:`COMMON_SHARE` of them. Statements that do not parse are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from activations.errors import TwinprobeError
from probes.tasks.grammars import KINDS, LANGUAGES, ROLES
from probes.tasks.items import FormName, Item, Task, source
from probes.tasks.language_syntax import language_marks
from probes.tasks.pools import FEWEST_ITEMS
from probes.tasks.rivals import Labels, draw_items
from probes.tasks.syntax_trees import DEEPEST, MOST_SIBLINGS
from probes.tasks.windows import Window, cut_windows, distinct, holders

FEWEST_FILES = 3
FEWEST_TEXTS = 100
COMMON, COMMON_SHARE = 30, 0.03
POSSIBLE = {
    "parent": tuple(KINDS),
    "node": tuple(ROLES),
    "depth": tuple(str(depth) for depth in range(1, DEEPEST + 1)),
    "siblings": tuple(str(count) for count in range(MOST_SIBLINGS + 1)),
}
SUFFIXES = {suffix: name for name, language in LANGUAGES.items() for suffix in language.suffixes}


@source("syntax", "syntax-tree nodes of names in source files, a form per language", "a folder of source files")
def read(path: Path) -> Task:
    """Read all source files below a folder, hidden ones excepted.

    Raises:
        TwinprobeError: no folder, tree-sitter is missing, a file is not UTF-8, or there is too little in any language.
    """
    if not path.is_dir():
        raise TwinprobeError(f"{path}: not a folder; expected a folder of source files")
    files = _files(path)
    windows = {form: _windows(path, form, found) for form, found in files.items()}
    taken = {
        form: found
        for form, found in windows.items()
        if len(found) >= FEWEST_TEXTS and len({window.group for window in found}) >= FEWEST_FILES
    }
    labels = _common(taken)
    if not labels:
        counts = ", ".join(f"{len(found)} in {len(files[form])} {form} files" for form, found in windows.items())
        raise TwinprobeError(
            f"{path}: too few labelled texts ({counts or 'no source files'}); expected at least {FEWEST_TEXTS} texts in "
            f"{FEWEST_FILES} files of a language: add files of {', '.join(LANGUAGES)}"
        )

    def generate(n_items: int, seed: int) -> list[Item]:
        return _generate(taken, labels, n_items, seed)

    return Task(
        "syntax", f"syntax-tree nodes of names in {path}", {target: tuple(taken) for target in labels}, generate,
        causal=False, clusters="group", files=tuple(file for form in taken for file in files[form]),
    )  # fmt: skip


def _files(path: Path) -> dict[FormName, list[Path]]:
    """The source files below a folder by language, in order."""
    found: dict[FormName, list[Path]] = {name: [] for name in LANGUAGES}
    for file in sorted(path.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
        if file.suffix in SUFFIXES and not hidden and file.is_file():
            found[SUFFIXES[file.suffix]].append(file)
    return {name: files for name, files in found.items() if files}


def _windows(folder: Path, language: str, files: Sequence[Path]) -> tuple[Window, ...]:
    windows: list[Window] = []
    for file in files:
        try:
            text = file.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise TwinprobeError(f"{file}: not UTF-8 (byte {error.start}); save the file as UTF-8") from None
        rows, marks = language_marks(language, text)
        windows += cut_windows(file.relative_to(folder).as_posix(), text, rows, marks)
    return distinct(windows)


def _common(windows: Mapping[FormName, Sequence[Window]]) -> Labels:
    """Labels that every language has often enough; a target needs two."""
    common = {}
    for target, possible in POSSIBLE.items():
        kept = set(possible)
        for found in windows.values():
            enough = max(COMMON, COMMON_SHARE * len(found))
            kept &= {label for label, held in holders(found, target, possible).items() if len(held) >= enough}
        if windows and len(kept) > 1:
            common[target] = tuple(label for label in possible if label in kept)
    return common


def _generate(windows: Mapping[FormName, Sequence[Window]], labels: Labels, n_items: int, seed: int) -> list[Item]:
    if n_items < FEWEST_ITEMS * len(windows):
        raise TwinprobeError(
            f"task 'syntax': {n_items} items asked for, but {', '.join(windows)} need at least "
            f"{FEWEST_ITEMS * len(windows)} together"
        )
    items = []
    for number, (form, found) in enumerate(windows.items()):
        size = n_items // len(windows) + (number < n_items % len(windows))
        items += draw_items("syntax", form, found, labels, size, seed)
    return items
