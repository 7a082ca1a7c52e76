"""Processes that benchmarks start: forks of one that has loaded Django, and nothing else."""

import multiprocessing

context = multiprocessing.get_context("forkserver")
# The server is started at the first process: by then the settings must be named. It never opens a
# cache, so its forks share none; each would take a good part of a second to load Django by itself.
context.set_forkserver_preload(["benchmarks.measuring.preloaded"])
