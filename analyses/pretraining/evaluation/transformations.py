"""Transformations of sentences, one example a line: source, TAB, target, and its category where there is a third column.

The form of COGS (Kim & Linzen 2020), its variable-free version (Qiu et al. 2022), ReCOGS (Wu et al. 2023), SLOG (Li et al.
2023), and of the English transformations of Mueller et al. 2022, whose sources end in their category.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from activations.errors import TwinprobeError

CategoryFrom = Literal["column", "last word", "nothing"]


@dataclass(frozen=True)
class Example:
    """A sentence, what it is turned into, and which kind of example it is."""

    source: str
    target: str
    category: str


def read_examples(path: Path, category_from: CategoryFrom, password: str | None = None) -> list[Example]:
    """The examples of a file; its path may go on inside a ``.zip``, which is read in memory and never unpacked.

    Args:
        path: a file, ``archive.zip`` of one file, or ``archive.zip/file/in/it``.
        category_from: what holds the category: the third column, or the last word of the source.
        password: of the archive, where it is encrypted.

    Raises:
        TwinprobeError: the file does not exist or can not be opened, or a line is no example.
    """
    try:
        text = _content(path, password).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise TwinprobeError(f"{path} is not UTF-8; expected lines of source, TAB, target") from None
    columns = 3 if category_from == "column" else 2
    examples = []
    for number, line in enumerate(text.split("\n"), start=1):
        cells = [cell.strip() for cell in line.split("\t")]
        if cells == [""]:
            continue
        if len(cells) < columns or "" in cells[:columns]:
            expected = ("source", "target", "category")[:columns]
            raise TwinprobeError(f"{path}, line {number}: {line[:60]!r}; expected {', TAB, '.join(expected)}")
        category = {"column": cells[2:3], "last word": cells[0].split()[-1:], "nothing": [""]}[category_from]
        examples.append(Example(cells[0], cells[1], category[0]))
    if not examples:
        raise TwinprobeError(f"{path} has no examples; expected lines of source, TAB, target")
    return examples


def _content(path: Path, password: str | None) -> bytes:
    archive = next((part for part in (path, *path.parents) if part.suffix == ".zip" and part.is_file()), None)
    if archive is None:
        if not path.is_file():
            raise TwinprobeError(f"{path}: no such file; give the folder that holds the data with --data-dir")
        return path.read_bytes()
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [name for name in opened.namelist() if not name.endswith("/")]
            wanted = path.relative_to(archive).as_posix()
            chosen = members if path == archive else [name for name in members if name == wanted]
            if len(chosen) != 1:
                raise TwinprobeError(
                    f"{path}: name one file of the archive, as in {archive}/{members[0] if members else 'file'}; "
                    f"it holds {', '.join(members) or 'none'}"
                )
            return opened.read(chosen[0], password.encode() if password else None)
    except (zipfile.BadZipFile, RuntimeError) as error:  # RuntimeError: no password, or a wrong one
        raise TwinprobeError(f"{archive} can not be read: {error}; a password is given as zip_password") from None


def sample(examples: list[Example], most: int | None) -> list[Example]:
    """At most ``most`` examples of each category, the same ones every time, in the order of the file; all for None."""
    if most is None:
        return examples
    generator = np.random.default_rng(0)
    places: dict[str, list[int]] = {}
    for place, example in enumerate(examples):
        places.setdefault(example.category, []).append(place)
    chosen = [place for _, each in sorted(places.items()) for place in generator.permutation(each)[:most]]
    return [examples[place] for place in sorted(chosen)]
