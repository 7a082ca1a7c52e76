"""Redis-style globs as regular expressions, for the stores that match keys themselves.

`*`, `?`, `[abc]`, `[a-z]`, `[^a]`; a backslash makes the next character literal. Corner cases are as
in Redis (`stringmatchlen` in its util.c): an unclosed class ends with the pattern, `[]` matches
nothing, `[^]` matches any character, a reversed range is reversed. Redis matches bytes and this
matches characters, which differs for `?` and for classes beyond ASCII.
"""

import functools
import re

_NOTHING = "(?!)"


@functools.lru_cache(maxsize=256)
def glob_to_regex(pattern: str) -> re.Pattern[str]:
    """Return a regular expression whose `fullmatch` matches the same keys as the glob.

    Matching takes time proportional to the sum of the lengths of pattern and text, at worst to their
    product. Between two stars each element matches one character, so the leftmost occurrence is as
    good as any later one: an atomic group keeps it, and there is no backtracking.
    """
    first, *others = _runs(pattern)
    if not others:
        return re.compile(first, re.DOTALL)
    middle = "".join(f"(?>.*?{run})" for run in others[:-1] if run)
    return re.compile(f"{first}{middle}.*{others[-1]}", re.DOTALL)


def _runs(pattern: str) -> list[str]:
    """Return the regular expressions of the parts between the stars."""
    runs = [""]
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            runs.append("")
        elif char == "?":
            runs[-1] += "."
        elif char == "[":
            part, at = _class(pattern, at)
            runs[-1] += part
        else:
            if char == "\\" and at < len(pattern):
                char = pattern[at]
                at += 1
            runs[-1] += re.escape(char)
    return runs


def _class(pattern: str, at: int) -> tuple[str, int]:
    """Return the regular expression of the class that begins at `at`, and its end."""
    negated = pattern.startswith("^", at)
    at += negated
    members: list[str] = []
    while at < len(pattern) and pattern[at] != "]":
        if pattern[at] == "\\" and at + 1 < len(pattern):
            members.append(re.escape(pattern[at + 1]))
            at += 2
        elif pattern.startswith("-", at + 1) and at + 2 < len(pattern):
            low, high = sorted((pattern[at], pattern[at + 2]))
            members.append(f"{re.escape(low)}-{re.escape(high)}")
            at += 3
        else:
            members.append(re.escape(pattern[at]))
            at += 1
    if not members:
        return ("." if negated else _NOTHING), at + 1
    return f"[{'^' if negated else ''}{''.join(members)}]", at + 1
