"""Every command of the pages has the name and options that it shows."""

import re
import shlex
from pathlib import Path

import pytest
from django.core.management import get_commands, load_command_class

from tests.unit.test_docs import CURRENT, ROOT, _ids, _python

TARGETS = set(
    re.findall(r"^([\w-]+(?: [\w-]+)*):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE)
)
NAMES = {name for line in TARGETS for name in line.split()}


def _commands(document: Path, begin: str) -> list[list[str]]:
    """Return the arguments of the commands of a page's console blocks that begin like this."""
    found = []
    for block in re.findall(
        r"^ *```console\n(.*?)^ *```$", document.read_text(), re.MULTILINE | re.DOTALL
    ):
        for line in re.findall(r"^ *\$ (.+(?:\\\n.+)*)", block, re.MULTILINE):
            command = line.replace("\\\n", " ")
            while match := re.match(r"[A-Z_]+=\S+ ", command):
                command = command[match.end() :]
            if command.startswith(begin):
                found.append(shlex.split(command, comments=True)[len(begin.split()) :])
    return found


@pytest.mark.parametrize("document", CURRENT, ids=_ids)
def test_manage_py_accepts_every_command(document: Path) -> None:
    apps = get_commands()
    for name, *arguments in _commands(document, "python manage.py"):
        app = apps[name]
        assert isinstance(app, str)
        load_command_class(app, name).create_parser("manage.py", name).parse_args(arguments)


@pytest.mark.parametrize("document", CURRENT, ids=_ids)
def test_make_has_every_target(document: Path) -> None:
    called = [words[0] for words in _commands(document, "make ")]
    assert [name for name in called if name not in NAMES] == []


def test_the_pages_have_commands_and_blocks_to_look_at() -> None:
    assert sum(len(_commands(page, "python manage.py")) for page in CURRENT) > 20
    assert sum(len(_python(page)) for page in CURRENT) > 40
    assert {"run", "check", "test", "docs"} <= NAMES
