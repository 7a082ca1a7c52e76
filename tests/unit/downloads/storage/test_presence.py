import hashlib
from pathlib import Path

import pytest

from cacheapp.downloads.storage.presence import is_present

WHOLE = b"whole"
SUM = f"sha256:{hashlib.sha256(WHOLE).hexdigest()}"
OTHER = f"sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("name", "size", "checksum", "present"),
    [
        ("file", None, "", True),
        ("file", 5, "", True),
        ("file", 4, "", False),
        ("file", 5, SUM, True),
        ("file", 5, OTHER, False),
        ("absent", None, "", False),
        ("file/below", None, "", False),
        ("folder", None, "", False),
        ("link", 5, "", False),
    ],
)
def test_a_file_is_present_with_its_size_and_its_checksum(
    tmp_path: Path, name: str, size: int | None, checksum: str, *, present: bool
) -> None:
    (tmp_path / "file").write_bytes(WHOLE)
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("file")
    assert is_present(tmp_path / name, size, checksum) is present


def test_a_name_that_the_file_system_refuses_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long"):
        is_present(tmp_path / ("x" * 256), None)
