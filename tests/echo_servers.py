"""The servers that the tests of echo servers run, each by the options that choose it, and fixtures that give one."""

from __future__ import annotations

import functools
import os
import resource
from collections.abc import Iterator

import pytest
from echo_client import EchoProcess, run_echo
from emulation import EMULATED

from echo.needs import MODES

PINNED = [mode for mode in MODES if "READ_FIXED" in MODES[mode]]
"""Those whose buffers are pinned from the start, and count against a limit of the user's."""
PINNED_NBYTES = 4 << 20
"""What they and their rings need at once in a test, and some more."""

SERVERS: dict[str, tuple[str, ...]] = {
    "auto": (),
    **{mode: ("--mode", mode) for mode in MODES},
    **{mode: ("--mode", mode, "--max-connections", "256") for mode in PINNED},
    "epoll": ("--backend", "epoll"),
}

EVERY = [name for name in SERVERS if name != "auto"]
"""`auto` is one of the others."""
KINDS = ["recv-send", "provided-buffers", "multishot", "epoll"]
"""Of each way to be a server, one."""


def servers(names: list[str]) -> list[object]:
    """Parameters of a test: one of each kind on every Python, the others on one.

    Under emulation the server that users of that kernel get, and the others as slow tests.
    """
    if EMULATED:
        return ["auto", *(pytest.param(name, marks=pytest.mark.slow) for name in names)]
    return [name if name in KINDS else pytest.param(name, marks=pytest.mark.one_python) for name in names]


@functools.cache
def missing(mode: str) -> str:
    """What this kernel lacks for a mode, in the server's own words; "" if nothing."""
    _, output, _ = run_echo("--list-modes")
    (line,) = (line for line in output.splitlines() if line.split()[:1] == [mode])
    return line.partition("  no: ")[2]


def needs_mode(mode: str) -> None:
    """Skip the test where the kernel cannot do that mode."""
    if missing(mode):
        pytest.skip(f"mode {mode}: {missing(mode)}")


def options_of(name: str) -> tuple[str, ...]:
    """The options that choose a server, which this kernel can run: else the test is skipped."""
    if name in MODES:
        needs_mode(name)
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if name in PINNED and os.geteuid() and 0 <= limit < PINNED_NBYTES:
        pytest.skip(f"mode {name}: only {limit} bytes may be pinned (ulimit -l)")
    return SERVERS[name]


@pytest.fixture(scope="module", params=servers(EVERY))
def options(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The options that choose a server: each of them in turn."""
    return options_of(request.param)


@pytest.fixture(scope="module", params=servers(KINDS))
def kind(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The options that choose a server: one of each kind."""
    return options_of(request.param)


@pytest.fixture(scope="module")
def shared(options: tuple[str, ...]) -> Iterator[EchoProcess]:
    """One server for all tests that leave it as it was; at the end it must have lost nothing."""
    with EchoProcess(*options) as process:
        yield process
        process.settle()
        assert "connections" in process.stop()


@pytest.fixture
def server(shared: EchoProcess) -> Iterator[EchoProcess]:
    """The shared server, which a test must leave without connections."""
    yield shared
    shared.settle()


@pytest.fixture(scope="module")
def shared_cramped(options: tuple[str, ...]) -> Iterator[EchoProcess]:
    """The same, with few buffers of 1000 bytes."""
    with EchoProcess(*options, "--buffers", "2", "--buffer-size", "1000") as process:
        yield process
        process.settle()
        process.stop()


@pytest.fixture
def cramped(shared_cramped: EchoProcess) -> Iterator[EchoProcess]:
    """The shared server with few and small buffers."""
    yield shared_cramped
    shared_cramped.settle()
