"""Pairs: a base model and its code-trained counterpart, with everything that confounds the comparison.

The registry is ``pairs.toml`` beside this module; each row says what was read for it and what could not be checked.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from typing import Any, Self

from activations.errors import TwinprobeError, did_you_mean

VERDICTS = ("yes", "no", "unverified")
KINDS = ("decoder", "encoder", "encoder-decoder")
JUDGEMENTS = {
    "same_architecture": "Architectures differ",
    "same_tokenizer": "Tokenizers differ",
    "same_vocabulary_size": "Vocabulary sizes differ",
    "continued_from_base": "The code model was not continued from this base",
}
"""The judged fields, and how the sentence about a "no" opens."""
DESCRIPTIONS = {"extra_tokens": "The code model saw", "context_changes": "Context:", "other_differences": "Also:"}
"""The described fields, and how the sentence about each opens."""


@dataclass(frozen=True)
class Judgement:
    """An answer to a yes-or-no question about a pair, with the reason."""

    verdict: str
    reason: str = ""

    @classmethod
    def parse(cls, field: str, text: str) -> Self:
        """Read ``"no: the reason"``; raises ``ValueError`` naming ``field`` for an unknown verdict."""
        verdict, _, reason = (part.strip() for part in text.partition(":"))
        if verdict not in VERDICTS:
            raise ValueError(f"{field} must open with yes, no or unverified, got {text!r}")
        if not reason:
            raise ValueError(f"{field} needs its reason after a colon, as in 'no: the reason', got {text!r}")
        return cls(verdict, reason)

    def __str__(self) -> str:
        """The written form that :meth:`parse` reads."""
        return f"{self.verdict}: {self.reason}" if self.reason else self.verdict


@dataclass(frozen=True)
class Pair:
    """Two models under comparison. Parameters are in billions; ``unverified`` names fields no source was read for.

    A description that opens with "none" reports that there is nothing to report.
    """

    name: str
    family: str
    base: str
    code: str
    kind: str
    base_parameters: float | None
    code_parameters: float | None
    same_architecture: Judgement
    same_tokenizer: Judgement
    same_vocabulary_size: Judgement
    continued_from_base: Judgement
    extra_tokens: str
    context_changes: str
    other_differences: str
    sources: tuple[str, ...]
    unverified: tuple[str, ...]

    @property
    def size_ratio(self) -> float | None:
        """Parameters of the code model over those of the base; ``None`` where a size is unknown."""
        if self.base_parameters is None or self.code_parameters is None:
            return None
        return self.code_parameters / self.base_parameters


FIELDS = tuple(field.name for field in fields(Pair))
LISTS = ("sources", "unverified")


def load_pairs() -> dict[str, Pair]:
    """The registry of published and embedded pairs, by name."""
    return dict(_registry())


def get_pair(name: str) -> Pair:
    """The registered pair called ``name``; raises :class:`TwinprobeError` where there is none."""
    pairs = _registry()
    if name not in pairs:
        guess = did_you_mean(name, pairs)
        raise TwinprobeError(f"unknown pair {name!r}{guess}; `twinprobe show pairs` lists the {len(pairs)} known ones")
    return pairs[name]


def custom_pair(base: str, code: str) -> Pair:
    """A pair of any two causal models (hub ids, folders or ``embedded:`` names), with every judgement unverified."""
    if not base or not code:
        raise TwinprobeError(f"a pair needs two models, got base {base!r} and code {code!r}; give hub ids or folders")
    slugs = [re.sub(r"[^a-z0-9.]+", "-", re.split(r"[/\\:]", name.rstrip("/\\"))[-1].lower()) for name in (base, code)]
    judged: dict[str, Any] = dict.fromkeys(JUDGEMENTS, Judgement("unverified"))
    described: dict[str, Any] = dict.fromkeys(DESCRIPTIONS, "unverified")
    unknown = ("base_parameters", "code_parameters", *judged, *described)
    name = "-vs-".join(slugs)
    return Pair(
        name, "custom", base, code, "decoder", None, None, **judged, **described, sources=(), unverified=unknown
    )


def confounds(pair: Pair) -> list[str]:
    """Sentences naming all that differs between the two models besides having been trained on code."""
    judged = [(opening, getattr(pair, field)) for field, opening in JUDGEMENTS.items()]
    said = [f"{opening}: {judgement.reason}." for opening, judgement in judged if judgement.verdict == "no"]
    for field, opening in DESCRIPTIONS.items():
        text: str = getattr(pair, field)
        if not re.match(r"(none|unverified)\s*(:|$)", text):
            said.append(f"{opening} {text}.")
    ratio = pair.size_ratio
    if ratio is not None and abs(ratio - 1) > 0.02:
        said.append(
            f"Sizes differ: the code model has {ratio:.2f} times the parameters of the base "
            f"({pair.code_parameters:.2f} against {pair.base_parameters:.2f} billion)."
        )
    if pair.unverified:
        said.append(f"Unverified: {', '.join(field.replace('_', ' ') for field in pair.unverified)}.")
    return said


@cache
def _registry() -> dict[str, Pair]:
    return parse_pairs((files("activations") / "pairs.toml").read_text(encoding="utf-8"), "pairs.toml")


def parse_pairs(text: str, where: str) -> dict[str, Pair]:
    """Parse a registry; ``where`` (the file's name) opens every message.

    Raises:
        TwinprobeError: not TOML, an unknown or missing field, a bad value, or a name used twice.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TwinprobeError(f"{where}: not valid TOML ({error})") from None
    families = document.get("family", {})
    pairs: dict[str, Pair] = {}
    for number, row in enumerate(document.get("pair", []), start=1):
        label = f"{where}: pair {row.get('name', f'number {number}')!r}"
        shared = families.get(row.get("family"), {})
        both = [key for key in LISTS if isinstance(shared.get(key), list) and isinstance(row.get(key), list)]
        pair = _pair(label, {**shared, **row, **{key: shared[key] + row[key] for key in both}})
        if pair.name in pairs:
            raise TwinprobeError(f"{label} is listed twice; names must be unique")
        pairs[pair.name] = pair
    return pairs


def _pair(label: str, row: dict[str, Any]) -> Pair:
    """Build one pair from its merged table, checking every field."""
    for field in sorted(set(row) - set(FIELDS)):
        guess = did_you_mean(field, FIELDS)
        raise TwinprobeError(f"{label} has the unknown field {field!r}{guess}; known: {', '.join(FIELDS)}")
    missing = [field for field in FIELDS if field not in row]
    if missing:
        raise TwinprobeError(f"{label} lacks {', '.join(missing)}; add it to the pair or to its family")
    try:
        pair = Pair(**{field: _value(field, row[field]) for field in FIELDS})
    except ValueError as error:
        raise TwinprobeError(f"{label}: {error}") from None
    for field in JUDGEMENTS:
        if getattr(pair, field).verdict == "unverified" and field not in pair.unverified:
            raise TwinprobeError(f"{label}: {field} is unverified but not named in 'unverified'; add it there")
    return pair


def _value(field: str, value: Any) -> Any:
    """Check one field's value and bring it to its type; raises ``ValueError`` naming field, value and expectation."""
    if field in LISTS:
        if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
            raise ValueError(f"{field} must be a list of strings, got {value!r}")
        for part in set(value) - set(FIELDS) if field == "unverified" else ():
            raise ValueError(f"unverified names {part!r}, which is not a field{did_you_mean(part, FIELDS)}")
        return tuple(dict.fromkeys(value))
    if field.endswith("_parameters"):
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise ValueError(f"{field} must be a positive number of billions, got {value!r}")
        return float(value)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{field} must be a non-empty string, got {value!r}")
    if field == "kind" and value not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {value!r}")
    return Judgement.parse(field, value) if field in JUDGEMENTS else value
