"""Files that appear whole or not at all, on a full disk too."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import file_size_limit

from activations.errors import TwinprobeError
from activations.files import write_whole


def test_content_arrives_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a"
    (tmp_path / "a.tmp").write_bytes(b"left by a killed run, and longer")
    for content in (b"first", b"second", b""):
        write_whole(path, content)
        assert path.read_bytes() == content
        assert list(tmp_path.iterdir()) == [path]


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    """Whoever has the old file open goes on reading the old one."""
    path = tmp_path / "a"
    write_whole(path, b"first")
    with path.open("rb", buffering=0) as reader:
        assert reader.read(2) == b"fi"
        write_whole(path, b"second")
        assert reader.read() == b"rst"
    assert path.read_bytes() == b"second"


def test_a_refused_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_whole(path, b"first")
    with pytest.raises(TwinprobeError) as caught, file_size_limit(1000):
        write_whole(path, b"x" * 1001)
    assert str(caught.value) == (
        f"no space left on the disk of {path}; what was finished is kept; free some space and run the same command again"
    )
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_what_was_there(small_disk: Path) -> None:
    """A real file system of 1 MB, really full."""
    write_whole(small_disk / "a", b"first")
    with pytest.raises(TwinprobeError, match="no space left on the disk"):
        write_whole(small_disk / "a", b"x" * 2**21)
    assert (small_disk / "a").read_bytes() == b"first"
    assert list(small_disk.iterdir()) == [small_disk / "a"]


def test_another_system_error_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "absent" / "a", b"x")
