"""Test the paths of databases."""

from diskcache.core import DBNAME

from cacheapp.backends.local.database_directory import DatabaseDirectory


def test_a_shard_is_named_as_diskcache_names_its_database() -> None:
    assert DatabaseDirectory.database_name == DBNAME
