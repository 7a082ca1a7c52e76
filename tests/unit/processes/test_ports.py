"""Which ports are given to servers, whatever range the kernel keeps for connections."""

from pathlib import Path

import pytest

from cacheapp.processes.ports import free_port


@pytest.mark.parametrize("first", [32_768, 9_000, 1_200, 1_024, 1])
def test_a_port_is_unprivileged_and_below_those_of_connections_if_there_are_any(
    tmp_path: Path, first: int
) -> None:
    ephemeral = tmp_path / "ip_local_port_range"
    ephemeral.write_text(f"{first}\t60999\n")
    for _ in range(20):
        port = free_port(ephemeral)
        assert port >= 1024
        assert first <= 1024 or max(1024, first - 12_000) <= port < first
