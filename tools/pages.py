"""Code blocks of the pages: what tests, newcomer.py and notebooks.py take out.

A block is left out where the line before it is `<!-- not run: reason -->`.
"""

import dataclasses
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^(\s*)(`{3,}|~{3,})\s*([\w+-]*)")
NOT_RUN = re.compile(r"^\s*<!-- not run: (\S.*) -->\s*$")
HEADING = re.compile(r"^#+\s+(.*)$")
PYTHON = ("python", "py", "python3")
SHELL = ("bash", "sh", "console")


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        heading: of the section that it stands in.
        language: what the fence says.
        lines: its lines, without the indent of the fence.
        line: number of the first of them in the page, from 1.
        reason: why it is not run, or "".
    """

    heading: str
    language: str
    lines: tuple
    line: int
    reason: str

    @property
    def source(self):
        return "\n".join(self.lines) + "\n"

    @property
    def python(self):
        return self.language in PYTHON and not self.reason

    @property
    def shell(self):
        return self.language in SHELL and not self.reason


def blocks(text):
    """The blocks of a page, in order.

    Raises:
        ValueError: if the last one is not closed.
    """
    found, fence, heading, before = [], None, "", ""
    for number, line in enumerate(text.splitlines(), 1):
        opened = FENCE.match(line)
        if fence is None and opened:
            indent, fence, language = opened.groups()
            why = NOT_RUN.match(before)
            lines, first = [], number + 1
        elif fence is not None and line.strip() == fence:
            reason = why.group(1) if why else ""
            found.append(Block(heading, language, tuple(lines), first, reason))
            fence = None
        elif fence is not None:
            lines.append(line.removeprefix(indent))
        elif named := HEADING.match(line):
            heading = named.group(1)
        if line.strip():
            before = line
    if fence is not None:
        raise ValueError("a code block is not closed")
    return found
