"""The lab's site on a private Gunicorn with several workers, with one alias as its cache."""

import contextlib
import secrets
from collections.abc import Iterator
from typing import Any

from cacheapp.lab.stores import BACKENDS, Stores
from cacheapp.processes.servers import GunicornServer, child_env
from cacheapp.processes.workers import Connection, NotReached, Workers

WORKERS = 4
PER_WORKER = 4
_KEEP_ALIVE_S = 60
"""A call is sent once, so no connection may be closed as idle because this process was suspended."""
_ARGUMENTS = (
    f"--workers {WORKERS} --worker-class gthread --threads {2 * PER_WORKER} "
    f"--keep-alive {_KEEP_ALIVE_S} --preload --log-level warning --no-control-socket"
)


class Site:
    """The workers of a running site: calls functions of `shop` in one of them, or in all."""

    def __init__(self, workers: Workers) -> None:
        self.workers = workers

    def by_one(self, name: str, *arguments: Any) -> Any:
        """Call a function in the first worker."""
        return self.by(name, self.workers.find()[0], *arguments)

    def by(self, name: str, pid: int, *arguments: Any) -> Any:
        """Call a function in one worker."""
        return self.workers.ask(pid, "POST", f"/do/{name}", {"arguments": arguments}).body["value"]

    def by_each(self, name: str, *arguments: Any) -> list[Any]:
        """Call a function in every worker, one after the other."""
        answers = self.workers.each("POST", f"/do/{name}", {"arguments": arguments})
        return [answer.body["value"] for answer in answers.values()]

    def signed_in(self) -> list[bool]:
        """Sign in at the first worker; return for each worker whether it knows the session."""
        pids = self.workers.find()
        key = self.workers.ask(pids[0], "POST", "/sign-in").body["value"]
        answers = (
            self.workers.ask(pid, "GET", "/who-am-i", cookie=f"sessionid={key}") for pid in pids
        )
        return [answer.body["value"] == "somebody" for answer in answers]

    def by_all(self, name: str, *arguments: Any, times: int = 1) -> list[Any]:
        """Call a function on all connections at once, `times` on each; return all results."""

        def work(_number: int, connection: Connection) -> list[Any]:
            answers = (
                connection.ask("POST", f"/do/{name}", {"arguments": arguments})
                for _ in range(times)
            )
            return [answer.body["value"] for answer in answers]

        return [value for part in self.workers.together(work) for value in part]


@contextlib.contextmanager
def site(stores: Stores, alias: str) -> Iterator[Site]:
    """Serve the site; it is yielded after every worker has responded."""
    directory = stores.new_directory("site")
    env = {
        **child_env(),
        "DJANGO_SETTINGS_MODULE": "cacheapp.lab.site.settings",
        "GUNICORN_CMD_ARGS": _ARGUMENTS,
        "LAB_BACKEND": BACKENDS[alias],
        "LAB_LOCATION": stores.location(alias),
        "LAB_DIRECTORY": str(directory),
        "LAB_SECRET": secrets.token_hex(),
    }
    with (
        GunicornServer("cacheapp.lab.site.wsgi:application", directory, env) as server,
        Workers(server.url, WORKERS, PER_WORKER, within_s=90.0) as workers,
    ):
        server.start()
        try:
            workers.find()
        except NotReached as exc:
            raise NotReached(f"{exc}\nGunicorn printed:\n{server.output()[-2000:]}") from exc
        yield Site(workers)
