"""Ports for servers that cannot inherit a socket that is bound already."""

from cacheapp.processes.ports import free_port

__all__ = ["free_port"]
