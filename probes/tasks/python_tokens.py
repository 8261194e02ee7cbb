"""What the tokens of Python source are: their roles, and whether a name is defined or used there."""

from __future__ import annotations

import ast
import io
import keyword
import tokenize
from collections.abc import Iterator, Sequence
from tokenize import TokenInfo
from typing import NamedTuple

CONSTANTS = ("None", "True", "False")
DELIMITERS = frozenset("()[]{},:.;!") | {"->", "..."}
LONGEST_STRING = 20  # characters; longer strings are texts of their own


class Mark(NamedTuple):
    """A labelled token: 1-based row, 0-based column in characters, its text, and the target it has ``label`` for."""

    row: int
    column: int
    text: str
    target: str
    label: str


def tokens_of(source: str) -> list[TokenInfo]:
    """The tokens of ``source`` up to its first error, without f-strings' insides (they are one token before 3.12)."""
    depth, tokens = 0, []
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            kind = tokenize.tok_name[token.type]
            depth += (kind == "FSTRING_START") - (kind == "FSTRING_END")
            if not depth and kind != "FSTRING_END":
                tokens.append(token)
    except (tokenize.TokenError, SyntaxError):
        pass
    return tokens


def _role(token: TokenInfo) -> str | None:
    if token.type == tokenize.NAME and token.string not in CONSTANTS:
        return "keyword" if keyword.iskeyword(token.string) else "identifier"
    if token.type == tokenize.STRING:
        prefix = token.string.partition(token.string[-1])[0]
        return "literal" if len(token.string) <= LONGEST_STRING and "f" not in prefix.lower() else None
    if token.type in (tokenize.NAME, tokenize.NUMBER):
        return "literal"
    return "operator" if token.type == tokenize.OP and token.string not in DELIMITERS else None


def role_marks(tokens: Sequence[TokenInfo]) -> list[Mark]:
    """The role of every token that has one: identifier, keyword, literal or operator."""
    found = [(token, _role(token)) for token in tokens]
    return [Mark(*token.start, token.string, "role", role) for token, role in found if role]


def characters(line: str, column: int) -> int:
    """A column in UTF-8 bytes, which is how syntax trees count, as one in characters."""
    return column if line.isascii() else len(line.encode()[:column].decode())


def use_marks(source: str, tokens: Sequence[TokenInfo]) -> list[Mark]:
    """Names that are assigned, parameters, functions and classes (definition), and names that are read (use)."""
    lines = source.split("\n")
    kinds: dict[tuple[int, int], str] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name | ast.arg):
            column = characters(lines[node.lineno - 1], node.col_offset)
            read = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
            kinds[node.lineno, column] = "use" if read else "definition"
    marks, before = [], ""
    for token in tokens:
        kind = "definition" if before in ("def", "class") else kinds.get(token.start)
        if token.type == tokenize.NAME and kind is not None:
            marks.append(Mark(*token.start, token.string, "use", kind))
        before = token.string
    return marks


def statements(tokens: Sequence[TokenInfo]) -> Iterator[tuple[int, int]]:
    """First and last row of every logical line, or ``(0, 0)`` where one holds a string over several rows."""
    first, broken = 0, False
    for token in tokens:
        if token.type == tokenize.NEWLINE:
            yield (0, 0) if broken else (first, token.end[0])
            first, broken = 0, False
        elif token.type not in (tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT):
            first = first or token.start[0]
            broken |= token.type == tokenize.STRING and token.start[0] != token.end[0]
