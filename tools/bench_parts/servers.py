"""Starting, watching and ending the servers that the echo benchmark compares.

Imports the standard library only: every server is a process of its own, ours too.
"""

from __future__ import annotations

import contextlib
import importlib
import random
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.bench_parts.measure import BenchError, pinned

ROOT = Path(__file__).resolve().parents[2]
ASYNCIO_SERVER = Path(__file__).with_name("asyncio_server.py")

UP_WITHIN_S = 30.0
DOWN_WITHIN_S = 5.0


@dataclass
class Server:
    """A row of the table: a name, and a command in which `{port}` stands for the port."""

    name: str
    command: list[str]
    own: bool = False
    """A mode of ours: this kernel may refuse it, and it says so in a line."""
    fresh: bool = False
    """To be started anew before each of its legs."""
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    log: Path | None = field(default=None, repr=False)

    def output(self) -> str:
        """What it printed so far, at most its last lines."""
        text = self.log.read_text(errors="replace").strip() if self.log else ""
        lines = text.splitlines()[-20:]
        return "\n".join(f"    {line}" for line in lines) or "    (it printed nothing)"

    def words(self) -> list[str]:
        """Its command on its port."""
        return [word.replace("{port}", str(self.port)) for word in self.command]

    def failed(self, what: str) -> BenchError:
        return BenchError(
            f"server {self.name}: {what}\n  command: {shlex.join(self.words())}\n  output:\n{self.output()}"
        )

    def pids(self) -> list[int]:
        """The process and its children: a server may do its work in those."""
        assert self.process
        found = [self.process.pid]
        for pid in found:
            with contextlib.suppress(OSError):
                for tasks in Path(f"/proc/{pid}/task").iterdir():
                    found += [int(child) for child in (tasks / "children").read_text().split()]
        return found

    def start(self, cpu: int) -> None:
        """Start it on that CPU; its threads and children stay there too."""
        assert self.log
        with open(self.log, "wb") as log, pinned(cpu):
            try:
                self.process = subprocess.Popen(
                    self.words(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT
                )
            except OSError as error:
                raise self.failed(f"cannot be started: {error}") from None

    def terminate(self) -> None:
        if self.process:
            self.process.terminate()

    def await_end(self) -> None:
        if self.process:
            try:
                self.process.wait(DOWN_WITHIN_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def restart(self, cpu: int) -> None:
        """Start it anew, on a port of its own: not every server can have the old one again at once."""
        self.terminate()
        self.await_end()
        (self.port,) = free_ports(1)
        self.start(cpu)
        self.await_up()

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def check_alive(self) -> None:
        assert self.process
        status = self.process.poll()
        if status is not None:
            raise self.failed(f"ended with status {status}")

    def await_up(self) -> None:
        """Wait until somebody listens on its port."""
        give_up = time.monotonic() + UP_WITHIN_S
        while True:
            self.check_alive()
            try:
                socket.create_connection(("127.0.0.1", self.port), 1.0).close()
                return
            except OSError as error:
                if time.monotonic() > give_up:
                    raise self.failed(f"nobody listens on its port after {UP_WITHIN_S:g} s: {error}") from None
            time.sleep(0.02)


def python_row(name: str) -> Server | str:
    """The server of that name in this Python, or why it is missing."""
    if name == "asyncio":
        return Server(name, [sys.executable, str(ASYNCIO_SERVER), "{port}"])
    if name == "asyncio-streams":
        return Server(name, [sys.executable, str(ASYNCIO_SERVER), "{port}", "--streams"])
    if name == "uvloop":
        try:
            importlib.import_module("uvloop")
        except ImportError:
            return "uvloop is not importable by this Python"
        return Server(name, [sys.executable, str(ASYNCIO_SERVER), "{port}", "--uvloop"])
    how = ["--backend", "epoll"] if name == "epoll" else ["--mode", name]
    return Server(name, [sys.executable, "-m", "echo", "{port}", *how, "--quiet"], own=name != "epoll")


def external_row(text: str, fresh: bool = False) -> Server:
    """NAME=COMMAND {port}. ValueError says what is wrong with it."""
    name, equals, command = text.partition("=")
    words = shlex.split(command)
    if not name or not equals or not words:
        raise ValueError("must be NAME=COMMAND {port}")
    if not any("{port}" in word for word in words):
        raise ValueError("has no {port} in its command")
    return Server(name, words, fresh=fresh)


def free_ports(count: int) -> list[int]:
    """That many different ports that nobody uses at this moment, nor will as a client.

    A port that the kernel gives to clients may be one's, or wait for a while after one has closed. Then a server
    that does not ask for SO_REUSEADDR cannot have it.
    """
    found: list[int] = []
    with contextlib.ExitStack() as held:
        while len(found) < count:
            sock, port = held.enter_context(socket.socket()), random.randrange(10_000, first_of_clients())
            with contextlib.suppress(OSError):
                sock.bind(("", port))
                found.append(port)
    return found


def first_of_clients() -> int:
    """The first port that the kernel gives to clients."""
    with contextlib.suppress(OSError, ValueError):
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        return first if first > 11_000 else 65_536
    return 32_768


@contextlib.contextmanager
def running(
    servers: Sequence[Server], cpu: int, tolerant: bool = False
) -> Iterator[tuple[list[Server], list[str]]]:
    """Have them up, pinned to one CPU; end each of them on the way out, come what may.

    Gives those that are up, and why others are not: modes of ours, and if `tolerant` any.
    """
    up, missing = [], []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        try:
            for server, port in zip(servers, free_ports(len(servers)), strict=True):
                server.port = port
                server.log = Path(folder, f"{port}.log")
                server.start(cpu)
            for server in servers:
                try:
                    server.await_up()
                except BenchError as error:
                    refuses = server.own and not server.alive()
                    if not refuses and not tolerant:
                        raise
                    missing.append(f"{server.name}: {server.output().strip() if refuses else str(error).splitlines()[0]}")
                else:
                    up.append(server)
            yield up, missing
        finally:
            for server in servers:
                server.terminate()
            for server in servers:
                server.await_end()
