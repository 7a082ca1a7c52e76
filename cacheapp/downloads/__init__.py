"""Threaded downloads that any worker can watch and cancel."""


def hand_over(pid: int) -> None:
    """Give up what the worker `pid` was doing; placeholder until the engine lands."""
