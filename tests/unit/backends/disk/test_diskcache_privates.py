"""The private names of diskcache that DiskCache relies on; docs/why.md gives the reasons.

If this fails after an update, read the new diskcache first: the pinned version is
the one that the code was written against.
"""

import contextlib
import inspect
import os
import sqlite3
from importlib import metadata
from pathlib import Path

import diskcache
from diskcache import core

PRIVATES = [
    "Cache.__init__",
    "Cache._con",
    "Cache._sql",
    "Cache._sql_retry",
    "Cache._transact",
    "Cache._cull",
    "Cache._select_delete",
    "Cache.volume",
    "Cache.reset",
    "Cache.close",
    "Cache.clear",
    "Cache.evict",
    "Disk.filename",
    "Disk.remove",
]
COLUMNS = (
    "rowid key raw store_time expire_time access_time access_count tag size mode filename value"
)


def test_the_version_is_the_pinned_one() -> None:
    assert metadata.version("diskcache") == "5.6.3"


def test_every_name_is_there_and_documented() -> None:
    why = (Path(__file__).parents[4] / "docs" / "why.md").read_text()
    for name in PRIVATES:
        owner, attribute = name.split(".")
        assert hasattr(getattr(core, owner), attribute), name
        assert f"`{name}`" in why, name


def test_the_constructor_can_run_with_other_functions_for_paths() -> None:
    constructor = core.Cache.__init__
    assert list(inspect.signature(constructor).parameters) == [
        *("self", "directory", "timeout", "disk", "settings")
    ]
    names = inspect.getclosurevars(constructor)
    assert names.globals["op"] is os.path
    assert not names.nonlocals
    used = {name for name in constructor.__code__.co_names if hasattr(os.path, name)}
    # Modules that it imports itself; which of them `os.path` has too depends on the Python.
    assert used - {"os", "errno"} == {"expanduser", "expandvars", "isdir"}


def test_culling_calls_what_we_replace() -> None:
    assert list(inspect.signature(core.Cache._cull).parameters) == [  # noqa: SLF001
        *("self", "now", "sql", "cleanup", "limit")
    ]
    assert "self.volume() < self.size_limit" in inspect.getsource(core.Cache._cull)  # noqa: SLF001
    assert "with self._transact(retry) as (sql, cleanup)" in inspect.getsource(
        core.Cache._select_delete  # noqa: SLF001
    )


def test_the_schema_is_the_one_that_our_sql_is_written_for(tmp_path: Path) -> None:
    with diskcache.Cache(str(tmp_path)):
        pass
    with contextlib.closing(sqlite3.connect(tmp_path / core.DBNAME)) as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(Cache)")]
        indexes = {row[1]: row[2] for row in database.execute("PRAGMA index_list(Cache)")}
        triggers = {
            row[0]
            for row in database.execute("SELECT name FROM sqlite_master WHERE type='trigger'")
        }
        settings = dict(database.execute("SELECT key, value FROM Settings"))
    assert columns == COLUMNS.split()
    assert indexes["Cache_key_raw"] == 1
    assert triggers == {
        *("Settings_count_insert", "Settings_count_delete"),
        *("Settings_size_insert", "Settings_size_update", "Settings_size_delete"),
    }
    assert settings["size"] == 0
    assert (core.MODE_RAW, core.MODE_BINARY) == (1, 2)


def test_the_policies_that_record_each_use_are_two() -> None:
    assert {name for name, policy in core.EVICTION_POLICY.items() if policy["get"]} == {
        "least-recently-used",
        "least-frequently-used",
    }
