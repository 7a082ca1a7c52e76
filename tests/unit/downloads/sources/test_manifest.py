import hashlib
from pathlib import Path

import pytest

from cacheapp.downloads.sources.base import SourceEntry, SourceRefused
from cacheapp.downloads.sources.manifest import Manifest, ManifestFormat
from cacheapp.downloads.storage.filenames import PORTABLE

SUM = "a" * 64


def _manifest(tmp_path: Path, text: str) -> Manifest:
    path = tmp_path / "list.txt"
    path.write_text(text, encoding="utf-8")
    return Manifest(path)


def _entry(line: str, base_url: str = "") -> SourceEntry:
    entry = ManifestFormat(base_url=base_url).read("1", line)
    assert entry is not None
    return entry


def test_a_manifest_has_a_url_a_sum_and_a_name_to_a_line(tmp_path: Path) -> None:
    source = _manifest(
        tmp_path,
        f"# files\n\nhttps://a.example/1.bin\nhttps://a.example/2 {SUM.upper()}\n"
        f"https://a.example/3 {SUM} sub/my file.bin\n  https://a.example/4   other.bin  \n",
    )
    assert list(source.entries()) == [
        SourceEntry("3", "https://a.example/1.bin", "1.bin"),
        SourceEntry("4", "https://a.example/2", "2", f"sha256:{SUM}"),
        SourceEntry("5", "https://a.example/3", "sub/my file.bin", f"sha256:{SUM}"),
        SourceEntry("6", "https://a.example/4", "other.bin"),
    ]
    assert [entry.cursor for entry in source.entries("4") if isinstance(entry, SourceEntry)] == [
        "5",
        "6",
    ]


def test_a_manifest_that_was_edited_is_another_source(tmp_path: Path) -> None:
    first = _manifest(tmp_path, "https://a.example/1\n").identity
    assert _manifest(tmp_path, "https://a.example/1\n").identity == first
    assert _manifest(tmp_path, "https://a.example/2\n").identity != first


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("https://a/1\nftp://a/2\n/etc/passwd\n", "line 2: ftp://a/2: scheme is 'ftp'"),
        ("https://a/1 ../x\n", "line 1: name '../x': the name has . or .. as a folder"),
        ("https://a/1 /etc/x\n", "line 1: name '/etc/x': the name begins with /"),
        ("# nothing\n\n", "no line names a URL"),
        ("", "no line names a URL"),
    ],
)
def test_a_bad_manifest_is_refused_with_its_lines(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SourceRefused) as caught:
        _manifest(tmp_path, text)
    assert message in str(caught.value)


def test_a_manifest_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceRefused, match="No such file or directory"):
        Manifest(tmp_path / "gone.txt")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\0")
    with pytest.raises(SourceRefused, match="is not UTF-8"):
        Manifest(tmp_path / "binary")


URL = "https://a.example/x"
DIGITS = {
    "sha256": hashlib.sha256(b"").hexdigest(),
    "sha512": hashlib.sha512(b"").hexdigest(),
    "sha1": hashlib.sha1(b"", usedforsecurity=False).hexdigest(),
    "md5": hashlib.md5(b"", usedforsecurity=False).hexdigest(),
}


@pytest.mark.parametrize(
    "line",
    [
        f"{URL} {SUM[1:]}",
        f"{URL} {SUM}0",
        f"{URL} {SUM[:-1]}g",
        f"{URL} sha256:{SUM[1:]}",
        f"{URL} sha384:{'a' * 96}",
        f"{URL} crc32c:abcd1234",
        f"{URL} sha256={SUM}",
        f"{URL} {DIGITS['md5']}",
        f"{URL} {DIGITS['sha512']}",
        f"{URL} sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        f"{URL} {SUM} {SUM}",
        f"{SUM[1:]}  name",
        f"SHA256 (name) = {SUM[1:]}",
    ],
)
def test_a_malformed_checksum_is_refused_and_never_a_name(line: str) -> None:
    with pytest.raises(SourceRefused):
        ManifestFormat(base_url="https://a.example/").read("1", line)


@pytest.mark.parametrize("algorithm", list(DIGITS))
def test_a_checksum_may_have_the_prefix_of_its_algorithm(algorithm: str) -> None:
    text = f"{algorithm}:{DIGITS[algorithm]}"
    assert _entry(f"{URL}\t{text.upper()}\tmy name") == SourceEntry("1", URL, "my name", text)


@pytest.mark.parametrize("algorithm", list(DIGITS))
@pytest.mark.parametrize("form", ["{}  {}", "{} *{}", "{}\t{}", "BSD", "OPENSSL"])
def test_the_lines_of_checksum_programs_have_a_base_url(algorithm: str, form: str) -> None:
    digits, name = DIGITS[algorithm], "./sub/a b#.bin"
    bsd = {"BSD": f"{algorithm.upper()} ({name}) = {digits}"}
    bsd["OPENSSL"] = (
        f"{algorithm.upper().replace('SHA', 'SHA2-' if algorithm != 'sha1' else 'SHA')}({name})= {digits}"
    )
    line = bsd.get(form) or form.format(digits, name)
    wanted = SourceEntry(
        "1", "https://a.example/d/sub/a%20b%23.bin", "sub/a b#.bin", f"{algorithm}:{digits}"
    )
    assert _entry(line + "\r\n", "https://a.example/d") == wanted


def test_an_escaped_name_of_sha256sum_is_unescaped() -> None:
    assert _entry(rf"\{SUM}  a\\b\nc", "https://a.example/").name == "a\\b\nc"


def test_a_name_like_a_checksum_is_written_as_a_path() -> None:
    assert _entry(f"{URL} ./{SUM}").name == SUM
    assert _entry(f"{URL} sha256-notes.txt").name == "sha256-notes.txt"


def test_a_checksum_list_without_a_base_url_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceRefused, match="line 1: 'name' has no URL; expected a base URL"):
        _manifest(tmp_path, f"{SUM}  name\n")


@pytest.mark.parametrize("url", ["ftp://a/", "https://a/?x=", "x"])
def test_a_base_url_is_checked(url: str) -> None:
    with pytest.raises(SourceRefused, match="base URL"):
        ManifestFormat(base_url=url)


def test_a_byte_order_mark_is_no_part_of_the_first_url(tmp_path: Path) -> None:
    source = _manifest(tmp_path, f"\ufeff{URL} one\r\n{URL}2\ttwo\n")
    assert [entry.name for entry in source.entries() if isinstance(entry, SourceEntry)] == [
        "one",
        "two",
    ]


def test_standard_input_is_read_once_and_has_the_identity_of_its_content(tmp_path: Path) -> None:
    text = f"{URL} one\n"
    source = Manifest(text.encode())
    assert source.identity == _manifest(tmp_path, text).identity
    assert [
        it.name for _ in range(2) for it in source.entries() if isinstance(it, SourceEntry)
    ] == [
        "one",
        "one",
    ]


def test_names_are_faithful_unless_they_are_to_be_portable() -> None:
    line = f"{URL} .zgroup"
    assert _entry(line).name == ".zgroup"
    entry = ManifestFormat(PORTABLE).read("1", line)
    assert entry == SourceEntry("1", URL, "_zgroup", original=".zgroup")
