from pathlib import Path

from cacheapp.backends import NearCache, RedisCache
from cacheapp.cachecheck.client_process import Setup
from cacheapp.cachecheck.clients import Clients
from cacheapp.cachecheck.journal import Journals
from cacheapp.cachecheck.run import CheckRun
from cacheapp.cachecheck.site import copied
from cacheapp.cachecheck.verdicts import PropertyVerdict
from cacheapp.cachecheck.workloads.bounded import BOUND, MACHINE
from cacheapp.cachecheck.workloads.site_faults import all_faults


def test_the_machines_have_the_options_of_a_near_cache_that_are_not_about_its_server(
    tmp_path: Path,
) -> None:
    options = {"copy": str(tmp_path), "serializer": "json", "USERNAME": "u", "PASSWORD": "p"}
    near = NearCache("redis://nowhere", {"KEY_PREFIX": "mine", "OPTIONS": options})
    assert copied(near) == {
        "BACKEND": "cacheapp.backends.near.cache.NearCache",
        "KEY_PREFIX": "mine",
        "OPTIONS": {"serializer": "json"},
    }
    on_cluster = NearCache("redis+cluster://nowhere", {"OPTIONS": {"copy": str(tmp_path)}})
    assert (copied(on_cluster) or {})["OPTIONS"] == {"cluster": True}
    assert copied(RedisCache("redis://nowhere", {})) is None
    assert copied({}) is None


def test_a_cache_without_copies_has_no_bound_to_check(tmp_path: Path) -> None:
    run = CheckRun(Clients(Setup("default"), 2), Journals(tmp_path), "token")
    found = {one.property: one.verdict for one in all_faults(run)}
    assert found == dict.fromkeys([BOUND, MACHINE], PropertyVerdict.NOT_APPLICABLE)
