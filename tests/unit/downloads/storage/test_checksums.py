import base64
import hashlib
import zlib

import pytest

from cacheapp.downloads.storage.checksums import (
    Checksum,
    RunningChecksums,
    checksums_from_headers,
    parse_checksum,
)

DATA = b"some bytes"
MD5 = hashlib.md5(DATA, usedforsecurity=False)
SHA1 = hashlib.sha1(DATA, usedforsecurity=False)
SHA256 = hashlib.sha256(DATA)
CRC32 = zlib.crc32(DATA).to_bytes(4, "big")
CHECK = b"123456789"  # the check value of CRC catalogues


def _text(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def _headers(**values: str) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in values.items()}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param({"content_md5": _text(MD5.digest())}, ("md5", MD5.digest()), id="content-md5"),
        pytest.param(
            {"x_amz_checksum_sha256": _text(SHA256.digest())},
            ("sha256", SHA256.digest()),
            id="amazon-sha256",
        ),
        pytest.param(
            {"x_amz_checksum_sha1": _text(SHA1.digest())},
            ("sha1", SHA1.digest()),
            id="amazon-sha1",
        ),
        pytest.param({"x_amz_checksum_crc32": _text(CRC32)}, ("crc32", CRC32), id="amazon-crc32"),
        pytest.param(
            {"repr_digest": f"crc32=:AAAA:, sha-256=:{_text(SHA256.digest())}:"},
            ("sha256", SHA256.digest()),
            id="repr-digest",
        ),
    ],
)
def test_a_checksum_in_a_header_is_read_and_verified(
    headers: dict[str, str], expected: tuple[str, bytes]
) -> None:
    (told,) = checksums_from_headers(_headers(**headers), whole_object=True)
    assert (told.algorithm, told.digest) == expected
    running = RunningChecksums([told.algorithm])
    running.update(DATA[:4])
    running.update(memoryview(DATA)[4:])
    assert running.mismatch([told]) is None
    running.update(b"!")
    assert f"expected {told.digest.hex()} from {told.source}" in (running.mismatch([told]) or "")


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [("crc32", "cbf43926"), ("crc32c", "e3069283"), ("crc64nvme", "ae8b14860a799888")],
)
def test_a_crc_of_s3_is_the_catalogued_one_however_the_bytes_come(
    algorithm: str, expected: str
) -> None:
    name = f"x_amz_checksum_{algorithm}"
    headers = _headers(
        **{name: _text(bytes.fromhex(expected)), "x_amz_checksum_type": "FULL_OBJECT"}
    )
    (told,) = checksums_from_headers(headers, f'"{MD5.hexdigest()}"', whole_object=True)
    assert (told.algorithm, told.digest.hex()) == (algorithm, expected)
    running = RunningChecksums([algorithm])
    buffer = bytearray(CHECK)
    for begin in range(0, len(CHECK), 2):
        running.update(memoryview(buffer)[begin : begin + 2])
    assert running.mismatch([told]) is None
    running.update(b"!")
    assert f"{algorithm} is " in (running.mismatch([told]) or "")


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"content_md5": "not base64"}, id="no-base64"),
        pytest.param({"content_md5": _text(b"short")}, id="wrong-length"),
        pytest.param({"content_md5": "é"}, id="no-ascii"),
        pytest.param({"x_amz_checksum_sha256": _text(SHA256.digest()) + "-3"}, id="of-parts"),
        pytest.param(
            {
                "x_amz_checksum_crc32": _text(CRC32),
                "x_amz_checksum_type": "COMPOSITE",
            },
            id="composite",
        ),
        pytest.param({"x_amz_checksum_crc64nvme": _text(CRC32)}, id="wrong-length-of-crc64"),
        pytest.param({"x_amz_checksum_crc32c": _text(CRC32) + "-2"}, id="crc32c-of-parts"),
        pytest.param({"repr_digest": "sha-256=abc"}, id="no-byte-sequence"),
        pytest.param({"etag": f'"{MD5.hexdigest()}"'}, id="etag-of-any-server"),
    ],
)
def test_a_checksum_of_less_than_the_whole_file_is_ignored(headers: dict[str, str]) -> None:
    assert checksums_from_headers(_headers(**headers), whole_object=True) == ()


def test_a_206_counts_only_checksums_of_the_whole_object() -> None:
    headers = _headers(content_md5=_text(MD5.digest()), x_amz_checksum_crc32=_text(CRC32))
    assert checksums_from_headers(headers, whole_object=False) == ()
    headers = _headers(repr_digest=f"sha-256=:{_text(SHA256.digest())}:")
    assert len(checksums_from_headers(headers, whole_object=False)) == 1


@pytest.mark.parametrize(
    ("etag", "headers", "counts"),
    [
        pytest.param(f'"{MD5.hexdigest()}"', {}, True, id="plain"),
        pytest.param(f'"{MD5.hexdigest()}-12"', {}, False, id="multipart"),
        pytest.param('"v1"', {}, False, id="no-md5"),
        pytest.param(
            f'"{MD5.hexdigest()}"',
            {"x_amz_server_side_encryption": "AES256"},
            True,
            id="own-key",
        ),
        pytest.param(
            f'"{MD5.hexdigest()}"',
            {"x_amz_server_side_encryption": "aws:kms"},
            False,
            id="key-service",
        ),
        pytest.param(
            f'"{MD5.hexdigest()}"',
            {"x_amz_server_side_encryption_customer_algorithm": "AES256"},
            False,
            id="customer-key",
        ),
        pytest.param(
            f'"{"0" * 32}"', {"x_amz_checksum_crc32": _text(CRC32)}, False, id="better-is-there"
        ),
    ],
)
def test_an_etag_of_s3_is_an_md5_only_for_plain_objects(
    etag: str, headers: dict[str, str], *, counts: bool
) -> None:
    told = checksums_from_headers(_headers(**headers), etag, whole_object=True)
    assert (Checksum("md5", MD5.digest(), "its ETag") in told) is counts


def test_a_given_checksum_is_hexadecimal() -> None:
    for text in (SHA256.hexdigest().upper(), f"SHA-256:{SHA256.hexdigest()}"):
        assert parse_checksum(text).digest == SHA256.digest()
    assert parse_checksum(f"md5:{MD5.hexdigest()}").algorithm == "md5"
    for mismatch in ("", "abc", SHA256.hexdigest() + "0", "g" * 64, f"md5:{'a' * 31}"):
        with pytest.raises(ValueError, match="hexadecimal digits"):
            parse_checksum(mismatch)
