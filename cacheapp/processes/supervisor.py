"""Run a server and a private Redis that end with this program: what `make run` is made of.

with until_stopped() as stack:
redis = start_redis(stack)
start_child(stack, ["gunicorn"], env={**os.environ, "REDIS_URL": redis.url}).wait()
"""

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

from cacheapp.processes.redis_cluster import PrivateCluster
from cacheapp.processes.servers import RedisServer, dies_with_us
from cacheapp.processes.stopping import Stopped, stopping


@contextlib.contextmanager
def until_stopped() -> Iterator[contextlib.ExitStack]:
    """Run the block until it ends, or until SIGINT, SIGTERM or SIGHUP ends it; then close the stack.

    The block's end by a signal is not an error: the program continues after it. A second signal
    does not interrupt the closing.
    """
    with contextlib.suppress(Stopped), stopping(), contextlib.ExitStack() as stack:
        yield stack


def start_redis(stack: contextlib.ExitStack) -> RedisServer:
    """Start a private Redis (`url`, `pid`) that stops with the stack.

    Raises `ServerFailed`, a `RuntimeError`, if no redis-server is installed or it does not start.
    """
    return stack.enter_context(RedisServer()).start()


def start_redis_cluster(stack: contextlib.ExitStack) -> PrivateCluster:
    """Start a private Redis Cluster (`url`) that stops with the stack; errors as `start_redis`."""
    return stack.enter_context(PrivateCluster()).start()


def start_child(
    stack: contextlib.ExitStack, command: Sequence[str], **options: Any
) -> subprocess.Popen[bytes]:
    """Start a process that is terminated with the stack, and also if this program is killed.

    It gets its own session, so that Ctrl-C in the terminal signals only this program. `options` are
    those of `subprocess.Popen`.
    """
    child = subprocess.Popen(  # noqa: S603 (the caller's command)
        dies_with_us(command), start_new_session=True, **options
    )
    stack.callback(child.wait)
    stack.callback(child.terminate)  # does nothing to a process that has ended
    return child
