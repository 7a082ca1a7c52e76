"""Test which directories are private, and which another user could replace."""

import grp
import os
import pwd
from pathlib import Path
from typing import Any

import pytest

from cacheapp.backends.local.private_directory import private_directory
from cacheapp.directory_trust import replaceable_reason
from cacheapp.errors import StoreUnavailable
from tests.other_user import UID, groups_of_a_team, require_root


def test_it_and_its_parents_are_created_for_their_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = private_directory(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert made.stat().st_mode & 0o777 == 0o700
    assert made.parent.stat().st_mode & 0o777 == 0o700


def test_it_is_created_again_if_another_process_removes_it_before_it_was_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, stat, removals = tmp_path / "removed", os.stat, [0]

    def stat_after_a_removal(found: Any, *args: Any, **how: Any) -> os.stat_result:
        if found == path and not removals[0] and os.path.lexists(path):
            removals[0] += 1
            path.rmdir()
        return stat(found, *args, **how)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", stat_after_a_removal)
        assert private_directory(path) == path
    assert removals == [1]
    assert path.is_dir()


@pytest.mark.parametrize(
    ("mode", "who"),
    [(0o777, "world"), (0o720, "group"), (0o770, "group"), (0o2775, "group")],
    ids=["0777", "0720", "0770", "2775"],
)
@pytest.mark.parametrize("below", ["", "a", "a/b"], ids=["itself", "parent", "grandparent"])
def test_what_others_can_replace_is_refused_with_the_command_that_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, who: str, below: str
) -> None:
    groups_of_a_team(monkeypatch)
    shared = tmp_path / "shared"
    path = shared / below
    path.mkdir(parents=True)
    for each in shared.rglob("*"):
        each.chmod(0o755)  # whatever the umask
    shared.chmod(mode)
    with pytest.raises(StoreUnavailable) as caught:
        private_directory(path)
    name = f"{shared} (on the way to {path})" if below else str(shared)
    assert str(caught.value) == (
        f"{name} is {who}-writable (mode {mode:04o}); run: chmod go-w {shared}; "
        "nothing in it was touched"
    )
    shared.chmod(0o755)
    assert private_directory(path) == path


def test_nothing_is_created_where_others_could_replace_it(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    with pytest.raises(StoreUnavailable, match="world-writable"):
        private_directory(tmp_path / "shared" / "a" / "b")
    assert list((tmp_path / "shared").iterdir()) == []


def test_a_directory_below_a_sticky_one_is_private_and_the_sticky_one_is_not(
    tmp_path: Path,
) -> None:
    (tmp_path / "sticky").mkdir()
    (tmp_path / "sticky").chmod(0o1777)
    assert private_directory(tmp_path / "sticky" / "mine").is_dir()
    with pytest.raises(StoreUnavailable, match=r"writable by others \(mode 1777\), expected 0700"):
        private_directory(tmp_path / "sticky")


@pytest.mark.parametrize(
    "target", ["../shared/real", "{}/shared/real"], ids=["relative", "absolute"]
)
def test_the_way_leads_through_links(tmp_path: Path, target: str) -> None:
    real = tmp_path / "shared" / "real"
    real.mkdir(parents=True)
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "link"
    link.symlink_to(target.format(tmp_path))
    assert private_directory(link / "cache") == link / "cache"
    (tmp_path / "shared").chmod(0o777)
    expected = f"{tmp_path / 'shared'} (on the way to {link}) is world-writable"
    assert str(replaceable_reason(link)).startswith(expected)


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(StoreUnavailable, match="Too many levels of symbolic links"):
        private_directory(tmp_path / "loop")


def test_a_link_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(StoreUnavailable, match="cannot create the directory"):
        private_directory(tmp_path / "link")


@pytest.mark.parametrize("below", ["", "a"], ids=["itself", "parent"])
def test_a_file_on_the_way_is_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match="is not a directory"):
        private_directory(tmp_path / "file" / below)


@pytest.mark.parametrize("below", ["", "a"], ids=["itself", "parent"])
def test_a_directory_of_another_user_is_refused(tmp_path: Path, below: str) -> None:
    require_root()
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o700)
    os.chown(theirs, UID, -1)
    expected = f"belongs to user {UID}, expected 0 or root; run: chown -h 0 {theirs}"
    with pytest.raises(StoreUnavailable, match=expected):
        private_directory(theirs / below)


def test_a_link_of_another_user_is_refused(tmp_path: Path) -> None:
    require_root()
    (tmp_path / "mine").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("mine")
    os.chown(tmp_path / "link", UID, -1, follow_symlinks=False)
    with pytest.raises(StoreUnavailable, match=f"link belongs to user {UID}"):
        private_directory(tmp_path / "link")


def _group(name: str, number: int, *members: str) -> grp.struct_group:
    return grp.struct_group((name, "x", number, list(members)))


def _account(name: str, number: int, group: int) -> pwd.struct_passwd:
    return pwd.struct_passwd((name, "x", number, group, "", "/", "/bin/sh"))


@pytest.mark.parametrize(
    ("group", "accounts", "accepted"),
    [
        (_group("ann", UID), [], True),
        (_group("ann", UID, "ann"), [], True),
        (_group("ann", UID, "bob"), [], False),
        (_group("ann", UID), [_account("bob", UID + 1, UID)], False),
        (_group("staff", UID), [], False),
    ],
    ids=["own", "own, listed", "a member", "a member by account", "another name"],
)
def test_only_a_group_without_another_member_may_write(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    group: grp.struct_group,
    accounts: list[pwd.struct_passwd],
    *,
    accepted: bool,
) -> None:
    require_root()
    ann = _account("ann", UID, UID)
    monkeypatch.setattr(grp, "getgrgid", lambda _number: group)
    monkeypatch.setattr(pwd, "getpwuid", lambda _number: ann)
    monkeypatch.setattr(pwd, "getpwall", lambda: [ann, *accounts])
    (tmp_path / "cache").mkdir()
    os.chown(tmp_path / "cache", UID, UID)
    (tmp_path / "cache").chmod(0o775)
    monkeypatch.setattr(os, "geteuid", lambda: UID)
    reason = replaceable_reason(tmp_path / "cache")
    assert (reason is None) is accepted, reason
