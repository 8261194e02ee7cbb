"""Indentation: a line of Python opens a block; how far is the next line to be indented?

By convention (PEP 8) four spaces more than the line that opens it. That line stands after a statement three blocks deep
and may go on in any of these blocks, so that only its own indentation tells. The difficulty is the number of conditions
in it: how far back that indentation is. There is no form in prose, where no line's place follows from another's.

The answer is the line break with the spaces after it. A tokenizer that gives the two one token (GPT-2's rule, and that
of the embedded twins) tells the levels apart by that token; one that gives the line break a token of its own (Llama 3,
Qwen2) does not, and such prompts are dropped and counted where they are patched. Every level but the first occurs twice
in a text, whatever the answer is, so that a bag of tokens does not give it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from probes.tasks.crossing import crossed
from probes.tasks.items import Contrast, Form, Item, Split, Weaver, task
from probes.tasks.pools import CALLEES, PEOPLE, VALUES, each_split

STEP = "    "
LEVELS = (1, 2, 3)
"""Levels at which the last line may stand: that of every open block."""
CONDITIONS = (1, 2, 3)
NEXT = "return"


@dataclass(frozen=True)
class Phrasing:
    """One template: the lines that open a block at each level, a statement, and the last line's parts."""

    id: str
    blocks: tuple[str, str, str]
    statement: str
    start: str
    condition: str
    join: str


_LOOP, _TEST = "for {name} in {other}:", "if {callee}({name}):"
PHRASINGS: dict[Split, tuple[Phrasing, ...]] = {
    "train": (
        Phrasing("if", ("def {callee}({name}):", _LOOP, _TEST), "{name} = {other}", "if", "{name}", "and"),
        Phrasing("while", ("def {callee}({name}):", _TEST, _LOOP), "{callee}({name})", "while", "{name}", "or"),
        Phrasing("not", ("class {callee}:", "def {name}({other}):", _TEST), "{name} = []", "if", "not {name}", "or"),
        Phrasing(
            "more",
            ("def {callee}({name}):", "with {callee}({other}):", _LOOP),
            "{callee}({name})",
            "while",
            "{name} > 0",
            "and",
        ),
    ),
    "dev": (
        Phrasing("none", ("def {callee}({name}):", _LOOP, _LOOP), "{name} = 0", "if", "{name} is None", "or"),
        Phrasing("with", ("with {callee}({name}):", _LOOP, _TEST), "{callee}({name})", "if", "{name}", "or"),
    ),
    "test": (
        Phrasing("in", ("def {callee}({name}):", _LOOP, _TEST), "{callee}({name})", "if", "{name} in {other}", "and"),
        Phrasing(
            "less", ("class {callee}:", "def {name}({other}):", _LOOP), "{name} += 1", "while", "{name} < 9", "or"
        ),
    ),
}


@dataclass(frozen=True)
class Block:
    """Where the last line stands, where it stands in the contrast, and the words of every line."""

    level: int
    other: int
    lines: tuple[tuple[int, str, dict[str, str]], ...]
    last: tuple[tuple[str, dict[str, str]], ...]

    def render(self) -> Form:
        """The lines; the contrast has the last line at another level. The control key is that line's first name."""
        weaver = Weaver()
        for level, template, words in self.lines:
            weaver.add(STEP * level + template + "\n", words)
        at = len(weaver.text)
        weaver.add("{indent}", {"indent": STEP * self.level}, {"indent": "indent"})
        for template, words in self.last:
            weaver.add(template, words)
        weaver.label_last("level", str(self.level + 1), control=self.last[0][1]["name"])
        twin = weaver.text[:at] + STEP * self.other + weaver.text[at:].removeprefix(STEP * self.level)
        levels = range(max(LEVELS) + 2)
        answers = [f"\n{STEP * level}{NEXT}" for level in levels]
        contrast = Contrast(twin, answers[self.other + 1])
        return Form(weaver.text, tuple(weaver.spans), answers[self.level + 1], tuple(answers), contrast)


def draw(rng: random.Random, split: Split, phrasing: Phrasing, level: int, conditions: int) -> Block:
    """Draw the words of a text whose last line stands at ``level``; every other level has one statement more instead."""

    def words() -> dict[str, str]:
        name, other = rng.sample(PEOPLE[split], 2)
        return {"name": name, "other": other, "callee": rng.choice(CALLEES[split])}

    lines = [(0, phrasing.blocks[0], words())]
    for each in LEVELS:
        if each != level:
            lines.append((each, phrasing.statement, words()))
        block = phrasing.blocks[each] if each < len(phrasing.blocks) else phrasing.statement
        lines.append((each, block, words()))
    last = [(f"{phrasing.start} {phrasing.condition}", {**words(), "name": rng.choice(VALUES)})]
    last += [(f" {phrasing.join} {phrasing.condition}", words()) for _ in range(conditions - 1)]
    other = rng.choice([each for each in LEVELS if each != level])
    return Block(level, other, tuple(lines), (*last, (":", {})))


@task("indentation", "how far the next line of Python is indented", {"level": ("code",)})
def generate(n_items: int, seed: int) -> list[Item]:
    """Draw items with balanced levels, crossed with the numbers of conditions."""
    items = []
    for split, size, rng in each_split("indentation", n_items, seed):
        for i, (level, conditions) in enumerate(crossed(rng, LEVELS, CONDITIONS, size)):
            phrasing = rng.choice(PHRASINGS[split])
            block = draw(rng, split, phrasing, level, conditions)
            said = {word for _, words in (*((t, w) for _, t, w in block.lines), *block.last) for word in words.values()}
            group = "/".join([phrasing.id, *sorted(said - set(VALUES))])
            form = block.render()
            items.append(
                Item(f"indentation-{seed}/{split}/{i:04d}", "indentation", split, group, conditions, {"code": form})
            )
    return items
