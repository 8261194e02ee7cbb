from __future__ import annotations

from pathlib import Path

from analyses.study.stages import Stages


def test_files_are_written_again_only_when_an_input_changed_or_one_is_gone(tmp_path: Path) -> None:
    calls: list[int] = []
    target = tmp_path / "figures" / "a.png"

    def write() -> list[Path]:
        calls.append(1)
        target.parent.mkdir(exist_ok=True)
        target.write_text("picture")
        return [target]

    def again(look: str) -> int:
        Stages(tmp_path).files("report", {"look": look}, write)
        return len(calls)

    assert [again("x"), again("x"), again("y"), again("y")] == [1, 1, 2, 2]
    target.unlink()
    assert [again("y"), again("y")] == [3, 3]
    assert target.read_text() == "picture"
