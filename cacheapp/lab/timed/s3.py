"""Objects of an S3 bucket, fetched with botocore: `download` in place of the one of `waiting`."""

from typing import Any

from cacheapp.lab.origins import BUCKET, s3_client
from cacheapp.lab.timed import waiting

_clients: list[Any] = []  # one for all threads and forked processes: making one is dear


def download_from_s3(key: str) -> int:
    """Fetch an object; return its size."""
    answer = _clients[0].get_object(Bucket=BUCKET, Key=key)
    return len(answer["Body"].read())


def addresses_for_asyncio(keys: list[str]) -> list[str]:
    """Sign addresses that anything can fetch: botocore itself knows no asyncio."""
    return [
        _clients[0].generate_presigned_url("get_object", {"Bucket": BUCKET, "Key": key})
        for key in keys
    ]


def seconds(way: str, endpoint: str, files: int, size: int) -> float:
    """Return how long it takes until all objects are there, whole; the client is made before."""
    _clients.append(s3_client(endpoint, connections=files))
    keys = [str(number) for number in range(files)]
    names = addresses_for_asyncio(keys) if way == "asyncio" else keys
    return waiting.stopwatch(way, download_from_s3, names, size)
