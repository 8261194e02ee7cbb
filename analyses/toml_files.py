"""Read a TOML file into a pydantic model, with one-line errors."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from activations.errors import TwinprobeError, did_you_mean

Model = TypeVar("Model", bound=BaseModel)


def read_toml(path: str | Path, model: type[Model]) -> Model:
    """Parse ``path`` and validate it.

    Raises:
        TwinprobeError: the file is missing, is not TOML, or a field is unknown, missing or of the wrong kind; the
            message names the file and the field.
    """
    path = Path(path)
    if not path.is_file():
        raise TwinprobeError(f"{path}: no such file; expected a TOML file")
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also not UTF-8, a number too long, arrays too deep
        raise TwinprobeError(f"{path}: not valid TOML ({error})") from None
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise TwinprobeError(f"{path}: {_first_problem(error, model)}") from None


def _first_problem(error: ValidationError, model: type[BaseModel]) -> str:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"]) or "the file"
    if first["type"] == "extra_forbidden":
        known = _fields_at(model, first["loc"][:-1])
        return f"unknown field {field!r}{did_you_mean(str(first['loc'][-1]), known)}; known here: {', '.join(known)}"
    if first["type"] == "missing":
        return f"field {field!r} is required"
    return f"field {field!r}: {first['msg']}, got {first['input']!r}"


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The field names of the table that ``location`` points into."""
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        nested = [kind for kind in (annotation, *getattr(annotation, "__args__", ())) if isinstance(kind, type)]
        tables = [kind for kind in nested if issubclass(kind, BaseModel)]
        if not tables:
            return []
        model = tables[0]
    return list(model.model_fields)


def to_toml(model: BaseModel) -> str:
    """Write a validated file back as TOML, defaults included; fields that are None are left out."""
    values = model.model_dump(mode="json", exclude_none=True)
    lines = [f"{key} = {_value(value)}" for key, value in values.items() if not isinstance(value, dict)]
    for key, table in values.items():
        if isinstance(table, dict):
            lines += ["", f"[{key}]", *(f"{name} = {_value(value)}" for name, value in table.items())]
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_value(str(key))} = {_value(entry)}" for key, entry in value.items()) + " }"
    if isinstance(value, list):
        return f"[{', '.join(_value(entry) for entry in value)}]"
    if isinstance(value, float):
        return repr(value)  # infinity is "inf" in both languages
    # JSON's strings, whole numbers and booleans are TOML too, but for the delete character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
