"""What the server that processes are forked from loads before the first one."""

from benchmarks.measuring.report import set_up_django

set_up_django()
