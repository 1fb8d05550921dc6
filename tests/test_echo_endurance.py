"""What an echo server keeps when many have come and gone: with small numbers. tests/echo_endurance.py has larger ones."""

from __future__ import annotations

import pytest
from echo_client import EchoProcess
from echo_endurance import many_at_once, opened_and_closed
from echo_servers import kind as kind
from echo_servers import options as options

pytestmark = [pytest.mark.slow, pytest.mark.one_python]

MIB = 1 << 20


def test_many_connections_cost_little_memory(kind: tuple[str, ...]) -> None:
    with EchoProcess(*kind) as server:
        figures = many_at_once(server, 400)
        # A connection with a buffer of its own has used a page of it, which on some machines has 64 KiB.
        assert figures.after_nbytes - figures.before_nbytes < 32 * MIB
        assert figures.after_fds == figures.before_fds + 400
        server.stop()


def test_what_was_opened_and_closed_leaves_nothing(options: tuple[str, ...]) -> None:
    with EchoProcess(*options) as server:
        figures = opened_and_closed(server, 120)
        assert figures.after_nbytes - figures.before_nbytes < 2 * MIB
        assert figures.after_fds == figures.before_fds
        server.stop()
