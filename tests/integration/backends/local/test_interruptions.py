"""An exception of a signal handler passes code that ignores the failures of its own calls."""

import os
import signal
from pathlib import Path

import pytest

from cacheapp.backends.lmdb.reference_bits import retire
from tests.integration.interrupts import interrupted_in


def test_a_handlers_time_out_is_not_taken_for_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)  # opening it waits for a reader

    def interrupt(_number: int, _frame: object) -> None:
        raise TimeoutError("out of time")

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(TimeoutError, match="out of time"), interrupted_in("retire"):
            retire(fifo)
    finally:
        signal.signal(signal.SIGUSR1, before)
    retire(tmp_path / "missing")
