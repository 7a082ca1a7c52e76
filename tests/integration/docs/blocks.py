"""Read the Python of a page: its blocks, and what HTML comments say about them.

A comment is invisible to readers, stands at the beginning of a line, and is one of these:

    <!-- run: CODE -->              Python that is executed at its place: what a block needs, or shows
    <!-- not run: REASON -->        the next block is not executed
    <!-- not used: REASON -->       the settings of the next block are checked, and its caches not used
"""

import re
from dataclasses import dataclass
from pathlib import Path

_STEP = re.compile(
    r"^<!-- (?P<mark>run|not run|not used):(?P<text>.*?)-->$"
    r"|^(?P<indent> *)```python\n(?P<code>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Step:
    """One block of a page, or the code in a comment."""

    line: int  # of its first line of code
    code: str
    hidden: bool = False
    left_out: str = ""  # "not run" or "not used"
    reason: str = ""


def steps_of(text: str) -> list[Step]:
    """Return the steps of a page in their order; raise `ValueError` for a comment without its block."""
    steps, left_out, reason = list[Step](), "", ""
    for match in _STEP.finditer(text):
        mark = match["mark"]
        line = text.count("\n", 0, match.start("text" if mark else "code")) + 1
        if mark == "run":
            steps.append(Step(line, match["text"].lstrip(" "), hidden=True))
            continue
        if mark and left_out:
            raise ValueError(f"line {line}: two comments before one block")
        if mark:
            left_out, reason = mark, " ".join(match["text"].split())
            continue
        code = re.sub(rf"^{match['indent']}", "", match["code"], flags=re.MULTILINE)
        steps.append(Step(line, code, left_out=left_out, reason=reason))
        left_out = reason = ""
    if left_out:
        raise ValueError(f"{left_out!r} stands before no block")
    return steps


def pages(root: Path) -> list[Path]:
    """Return README and all pages below `docs`."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def console_commands(text: str) -> list[str]:
    """Return the commands of a page's console blocks, without their comments."""
    blocks = re.findall(r"^ *```console\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [
        re.sub(r" +# .*", "", line.replace("\\\n", " "))
        for block in blocks
        for line in re.findall(r"^ *\$ (.+(?:\\\n.+)*)", block, re.MULTILINE)
    ]
