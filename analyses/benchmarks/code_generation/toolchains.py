"""Find what runs a language on this machine, and try it in the sandbox before any sample is."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

from activations.errors import TwinprobeError
from analyses.benchmarks.code_generation.containment import Limits
from analyses.benchmarks.code_generation.drivers import TELLING
from analyses.benchmarks.code_generation.jail import SYSTEM
from analyses.benchmarks.code_generation.languages import Language

INTERPRETERS = {"lua": ("lua", "lua5.4", "lua5.3")}
"""Other names of a tool, the first that is found is taken."""


@dataclass(frozen=True)
class Toolchain:
    """A language and where its tools are: ``paths`` by name, without links."""

    language: Language
    paths: dict[str, str]

    @property
    def steps(self) -> list[list[str]]:
        """The commands with their tools' paths."""
        return [[self.paths.get(step[0], step[0]), *step[1:]] for step in self.language.steps]

    @property
    def places(self) -> list[str]:
        """Folders outside the system's that a program may see."""
        return sorted(place for pattern in self.language.places for place in glob(pattern))

    @property
    def libraries(self) -> list[str]:
        """Folders of the tools' own libraries, which they find by /proc, and the sandbox has none."""
        folders = {str(Path(path).parents[1] / "lib") for path in self.paths.values()}
        return sorted(folder for folder in folders - {"/lib", "/usr/lib", "/usr/local/lib"} if os.path.isdir(folder))

    def told(self, mark: str) -> dict[str, Any]:
        """What the driver is told."""
        language = self.language
        word = mark if language.last else ""
        needed = {"file": language.file, "files": dict(language.files), "libraries": self.libraries}
        return {**needed, "steps": self.steps, "mark": word, "telling": TELLING}


def find_toolchain(language: Language, limits: Limits, allow_weak: bool = False) -> Toolchain:
    """The tools of ``language``, tried in the sandbox with its own check.

    Args:
        language: one of :data:`analyses.benchmarks.code_generation.languages.LANGUAGES`.
        limits: what one sample may use, before what the language needs besides.
        allow_weak: also where network or files can not be kept from programs.

    Raises:
        TwinprobeError: a tool is not there, can not be seen in the sandbox, or fails on the check; or isolation is
            incomplete and not allowed to be.
    """
    from analyses.benchmarks.code_generation.sandbox import isolation, run_program

    paths = {}
    for tool in language.tools:
        named = next(filter(None, map(shutil.which, INTERPRETERS.get(tool, (tool,)))), None)
        if named is None:
            raise TwinprobeError(f"{language.name} needs {tool}, which is not on the PATH; install {language.about}")
        paths[tool] = os.path.realpath(named)
        if isolation().files and not paths[tool].startswith(tuple(f"{place}/" for place in SYSTEM)):
            raise TwinprobeError(
                f"{language.name} needs {tool}, and {named} lies outside the folders that the sandbox shows "
                f"({', '.join(SYSTEM[:2])}, ...); install {language.about} there, as the system's packages do"
            )
    found = Toolchain(language, paths)
    outcome = run_program(language.check, limits, allow_weak, found)
    if outcome.status != "passed":
        raise TwinprobeError(
            f"{language.name}: {', '.join(paths.values())} does not run in the sandbox ({outcome.detail}); install "
            f"{language.about} with what MultiPL-E's tests use, or raise the limits"
        )
    return found
