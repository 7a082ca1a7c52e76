"""Removes secrets from URLs for display. Imports no package: the admin needs it everywhere."""

import re

_QUERY = re.compile(r"([?#]).*", re.DOTALL)
_CREDENTIALS = re.compile(r"//[^/]*@")
_AMBIGUOUS_AUTHORITY = re.compile(r"//[^/?#]*[?#][^/]*@.*", re.DOTALL)
"""A `?` before an `@`: in a password, or a query with an `@`."""


def redacted(url: str) -> str:
    """Return a URL without its secrets.

    It has `?...` for the query, which may hold a signature or a token, `#...` for the fragment, and
    `//...@` for a user name and password.
    """
    cut = _QUERY.sub(r"\g<1>...", _AMBIGUOUS_AUTHORITY.sub("//...", url, count=1))
    return _CREDENTIALS.sub("//...@", cut)
