"""Reads the fenced examples of a page, and compares what they say with what happens.

A block of `console` has commands behind `$ ` and what each prints below it. `sh` is commands alone. In what is printed `[...]`, `...` and `…` stand
for what is left out; ids, times, cursors and counts of milliseconds stand for any of their kind, because no two runs have the same.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w+)?\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
# What differs from run to run, and what may stand in its place.
KINDS = (
    # An opaque text that is cut begins as it may.
    (r"[\w-]{4,}(?:\[\.\.\.\]|\.\.\.|…)", r"[\w-]+"),
    (r"\[\.\.\.\]|\.\.\.|…", r"[\s\S]*?"),
    (r"req_[0-9a-f]{32}", r"req_[0-9a-f]{32}"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"),
    (r"demo-[0-9a-f]{8}", r"demo-[0-9a-f]{8}"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z"),
    (r"in \d+\.\d\d s", r"in \d+\.\d\d s"),
    # How often a task is looked at is a matter of how fast it goes.
    (r"(?: +[\d,]+ of [\d,]+, \d+ failed\n)+", r"(?: +[\d,]+ of [\d,]+, \d+ failed\n)+"),
    (r"(?<![\w-])[\w-]{40,}(?![\w-])", r"[\w-]+"),
    # Positions, numbers of databases, milliseconds.
    (r"\b\d{4,}\b", r"\d+"),
)
PARTS = re.compile("|".join(f"(?P<k{n}>{found})" for n, (found, _) in enumerate(KINDS)))


@dataclass
class Block:
    page: Path
    line: int
    language: str
    text: str

    def __str__(self):
        return f"{self.page.name}:{self.line}"

    def steps(self):
        """The commands of the block, each with what it prints."""
        steps = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                steps.append([line[2:], []])
            elif steps:
                steps[-1][1].append(line)
            else:
                steps.append([None, [line]])
        return [(command, "\n".join(lines)) for command, lines in steps]


def blocks(page):
    """The blocks of a page that show something of a running service; pictures and forms are not among them."""
    text = page.read_text()
    for found in FENCE.finditer(text):
        language = found["language"] or ""
        if language not in ("", "mermaid"):
            yield Block(page, text[: found.start()].count("\n") + 1, language, found["text"])


def pattern(text):
    """What a printed text must match to be as the example says."""
    made, at = "", 0
    for found in PARTS.finditer(text):
        made += re.escape(text[at : found.start()])
        made += next(KINDS[n][1] for n in range(len(KINDS)) if found[f"k{n}"])
        at = found.end()
    return made + re.escape(text[at:])


def same(due, printed):
    """Whether what was printed is what the example says, but for white space at the ends."""
    return re.fullmatch(pattern(due.strip()), printed.strip()) is not None


def same_json(due, found):
    """The same for two JSON values. A text of the example may have something left out."""
    if isinstance(due, dict) and isinstance(found, dict):
        return due.keys() == found.keys() and all(same_json(value, found[name]) for name, value in due.items())
    if isinstance(due, list) and isinstance(found, list):
        return len(due) == len(found) and all(map(same_json, due, found))
    if isinstance(due, str) and isinstance(found, str):
        return same(due, found)
    return type(due) is type(found) and (due == found or isinstance(due, int) and due > 1000)


def show(due, printed):
    """A message that shows how far the two go together."""
    lines, printed_lines = due.strip().splitlines(), printed.strip().splitlines()
    for n in range(len(lines), 0, -1):
        if re.match(pattern("\n".join(lines[:n])) + r"(?:\n|$)", printed.strip()):
            return f"differs behind line {n}: {lines[n:n + 1]}\nthe page says:\n{due}\nprinted was:\n{printed}"
    return f"differs from the first line: {printed_lines[:1]}\nthe page says:\n{due}\nprinted was:\n{printed}"


