"""The store: the captured rows of one model over one set of texts, as HDF5 shards under one index, or packed in one file.

Layout of a store folder (schema 2)::

    store.json         provenance: model, text set, sites, rows, BOS, types; tells whether a resume is the same job
    texts.jsonl        the texts with their spans, in the input format
    shards/00000.h5    rows/{text,position,token,start,end,span}; one dataset [rows, width] per site, e.g. resid_post/3;
                       inputs/{text,token,start,end}: every token the model read, BOS included
    index.h5           virtual datasets over all shards, same names; written last, so its presence means "complete"

``text`` counts lines of ``texts.jsonl``, ``rows/span`` the spans of that text (-1 where the row is not a span),
``start`` and ``end`` are character offsets. A packed store (:mod:`activations.packing`) is one file with all of that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from activations.errors import TwinprobeError, did_you_mean
from activations.layout import INPUT_COLUMNS as INPUT_COLUMNS
from activations.layout import RECORD, TEXTS, Layout, Place, damaged, folder_layout, locate, opened, packed_layout
from activations.layout import ROW_COLUMNS as ROW_COLUMNS
from activations.reading import RAW, Rows, gather, row_numbers
from activations.records import SCHEMA as SCHEMA
from activations.records import kept_file
from activations.records import read_record as read_record
from activations.sites import Site, parse_site
from activations.tables import columns, inputs_table, matching, rows_table
from activations.texts import Text, parse_text, read_texts

if TYPE_CHECKING:
    import torch

    from activations.views import SiteDataset


class ActivationStore:
    """Read access to a finished store, a folder or a packed file.

    No file stays open between calls: a store may be handed to forked and to other processes.

    Example::

        store = ActivationStore("runs/acts")
        rows = store.select(span="role", label=["def", "use"])
        features = store.read("resid_post.3", rows)            # float32 [rows, width]
    """

    def __init__(self, path: str | Path) -> None:
        """Open the store at ``path``.

        Raises:
            TwinprobeError: there is no store, or one that is not finished.
        """
        self.path = Path(path)
        self.packed = self.path.is_file()
        if not self.packed and not (self.path / RECORD).exists():
            raise TwinprobeError(f"{self.path} holds no store (no {RECORD}); twinprobe cache writes one")
        self.provenance = read_record(self.path)
        self._places: dict[tuple[int, str], Place] = {}
        if self.packed:
            return
        done = len(list((self.path / "shards").glob("*.h5")))
        if done < self.provenance["shards"] or not (self.path / "index.h5").exists():
            raise TwinprobeError(
                f"{self.path} is not finished ({done} of {self.provenance['shards']} shards); "
                "run the same twinprobe cache command again to resume"
            )

    @property
    def sites(self) -> list[str]:
        """The sites that were captured, as written (``resid_post.3``)."""
        return list(self.provenance["sites"])

    @property
    def dtype(self) -> str:
        """The storage type: float32, float16 or bfloat16."""
        return str(self.provenance["storage_dtype"])

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return int(self.layout.rows[-1])

    @property
    def n_tokens(self) -> int:
        """How many tokens the model read, BOS included."""
        return int(self.layout.tokens[-1])

    @property
    def size(self) -> int:
        """Bytes on disk."""
        files = [self.path] if self.packed else [file for file in self.path.rglob("*") if file.is_file()]
        return sum(file.stat().st_size for file in files)

    @cached_property
    def layout(self) -> Layout:
        """Which shard and which file the rows lie in."""
        return packed_layout(self.path) if self.packed else folder_layout(self.path, self.provenance["shards"])

    @cached_property
    def texts(self) -> list[Text]:
        """The captured texts."""
        if not self.packed:
            return read_texts(self.path / TEXTS)
        try:
            lines = kept_file(self.path, TEXTS).decode().split("\n")
        except UnicodeDecodeError as error:
            raise damaged(self.path, f"{TEXTS}: {error}") from None
        return [parse_text(line, f"{self.path}, {TEXTS}:{number}") for number, line in enumerate(lines, 1) if line]

    @cached_property
    def rows(self) -> pd.DataFrame:
        """One line per row: text, group, position, token, start, end, span, label, control (None where absent)."""
        return rows_table(self.texts, columns(self.layout, "rows"), self.path)

    @cached_property
    def inputs(self) -> pd.DataFrame:
        """One line per token the model read, BOS included: text (id), token, start, end."""
        return inputs_table(self.texts, columns(self.layout, "inputs"), self.path)

    def select(self, **wanted: Any) -> npt.NDArray[np.int64]:
        """The numbers of the rows that have the wanted values, ascending.

        Each argument is a column of ``rows`` with a value or a list of values, any of which will do; ``None`` stands
        for rows without one. Example: ``select(span="role", label=["def", "use"])``.

        Raises:
            TwinprobeError: no such column, or a value that it can not hold.
        """
        return matching(self.rows, wanted)

    def width(self, site: str | Site) -> int:
        """How many numbers a row has at ``site``.

        Raises:
            TwinprobeError: the site was not captured.
        """
        dataset, _ = self._site(site).dataset, self.layout  # which checks the index
        with opened(self.path if self.packed else self.path / "index.h5") as handle:
            return int(handle[dataset].shape[1])

    def read(self, site: str | Site, rows: Rows | None = None) -> npt.NDArray[np.float32]:
        """Activations at ``site`` as float32 ``[rows, width]``; of the files only what is asked for is read.

        Args:
            site: one of ``sites``.
            rows: row numbers in any order and with repetitions, or one truth value per row; all rows where ``None``.

        Raises:
            TwinprobeError: the site was not captured, a row does not exist, or a file is damaged.
        """
        return self._read(site, rows, np.dtype(np.float32))

    def raw(self, site: str | Site, rows: Rows | None = None) -> npt.NDArray[Any]:
        """As :meth:`read`, but in the storage type: float32, float16, or the bits of bfloat16 as uint16."""
        return self._read(site, rows, np.dtype(RAW[self.dtype]))

    def _read(self, site: str | Site, rows: Rows | None, kind: np.dtype[Any]) -> npt.NDArray[Any]:
        site = self._site(site)
        numbers = row_numbers(rows, self.n_rows, str(self.path))
        if not len(numbers):
            return np.empty((0, self.width(site)), kind)

        first = self.layout.first("rows")

        def place(file: int) -> Place:
            if (file, site.dataset) not in self._places:
                count = int(first[file + 1] - first[file])
                self._places[file, site.dataset] = locate(self.layout.files[file], site.dataset, count)
            return self._places[file, site.dataset]

        if (np.diff(numbers) > 0).all():
            return gather(place, first, numbers, self.dtype, kind)
        numbers, order = np.unique(numbers, return_inverse=True)
        return gather(place, first, numbers, self.dtype, kind)[order]

    def _site(self, site: str | Site) -> Site:
        if str(site) not in self.sites:
            raise TwinprobeError(
                f"{self.path} has no site {str(site)!r}{did_you_mean(str(site), self.sites)}; "
                f"it has {', '.join(self.sites)}"
            )
        return parse_site(site) if isinstance(site, str) else site

    def stream(
        self, sites: str | Site | Sequence[str | Site], rows: Rows | None = None, size: int = 4096
    ) -> Iterator[tuple[npt.NDArray[np.int64], dict[str, npt.NDArray[np.float32]]]]:
        """Rows and their activations, ``size`` at a time in the order of ``rows``; no more than that is in memory.

        Yields:
            Row numbers ``[n]``, and by site (as written) float32 ``[n, width]``.

        Raises:
            TwinprobeError: as :meth:`read`; or ``size`` is less than 1.
        """
        if size < 1:
            raise TwinprobeError(f"a size of {size} rows was asked for; expected at least 1")
        names = [str(self._site(site)) for site in ([sites] if isinstance(sites, str | Site) else sites)]
        numbers = row_numbers(rows, self.n_rows, str(self.path))
        parts = (numbers[start : start + size] for start in range(0, len(numbers), size))
        return ((part, {name: self.read(name, part) for name in names}) for part in parts)

    def tensor(self, site: str | Site, rows: Rows | None = None) -> torch.Tensor:
        """As :meth:`read`, but a torch tensor of the storage type itself, bit for bit."""
        from activations.views import tensor

        return tensor(self, site, rows)

    def frame(self, site: str | Site, rows: Rows | None = None) -> pd.DataFrame:
        """As :meth:`read`, but a table: the columns of ``rows``, and ``"0"``, ``"1"``, ... for the dimensions."""
        from activations.views import frame

        return frame(self, site, rows)

    def dataset(self, site: str | Site, target: str = "label", rows: Rows | None = None) -> SiteDataset:
        """A torch ``Dataset`` of (float32 vector, class number), see :func:`activations.views.dataset`."""
        from activations.views import dataset

        return dataset(self, site, target, rows)

    def verify(self, progress: Callable[[int, int], None] = lambda done, total: None) -> list[str]:
        """Every problem of the files, none where the store is sound; see :func:`activations.verifying.verify`."""
        from activations.verifying import verify

        return verify(self.path, progress)

    def pack(
        self,
        out: str | Path,
        compress: str | None = None,
        progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
    ) -> ActivationStore:
        """Write all of the store into one file, see :func:`activations.packing.pack`."""
        from activations.packing import pack

        return pack(self, out, compress, progress)
