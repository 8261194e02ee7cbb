"""Documents kept on the disk while the data is prepared: a source is read once, however slow or far away it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from analyses.pretraining.corpora import Document
from analyses.pretraining.loop import Report
from analyses.pretraining.tables import Kind


class Spool(AbstractContextManager["Spool"]):
    """Documents written one after the other into a file, then read from it in the same order, as often as needed.

    Attributes:
        sizes: bytes of each document, by kind, in the order they came.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sizes: dict[Kind, list[int]] = {}
        self._file = path.open("wb")

    def write(self, document: Document) -> None:
        """Add a document."""
        self.sizes.setdefault(document.kind, []).append(len(document.text.encode()))
        self._file.write(json.dumps([document.kind, document.name, document.text], ensure_ascii=False).encode() + b"\n")

    def __exit__(self, *_error: object) -> None:
        self._file.close()

    def read(self, what: str, report: Report) -> Iterator[Document]:
        """All documents, reported under the name ``what``."""
        total = sum(map(len, self.sizes.values()))
        with self.path.open("rb") as lines:
            for done, line in enumerate(lines, start=1):
                yield Document(*json.loads(line))
                report(what, done, total, "")
