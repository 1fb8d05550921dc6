"""Connections that come and go: each place connects, sends one message, has it back, closes, and begins anew.

Imports its neighbours, and rawuring for the ring. A byte too many is not noticed here: the connection is closed as
soon as the message is there.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import socket
import time
from typing import Any, NoReturn

from tools.load_parts.base import Load, LoadError, ceil_power

Address = tuple[socket.AddressFamily, tuple[Any, ...]]


class Churn(Load):
    """What the backends share. A message waits from the making of its socket to the closing."""

    def __init__(self, address: Address, places: int, size: int) -> None:
        super().__init__(places, size, size)
        self.family, self.address = address
        self.places = places
        self.began_ns = [0] * places
        self.waits: list[int] = []
        self.open = 0

    def forget(self) -> None:
        super().forget()
        self.waits.clear()

    def waits_ns(self) -> list[int]:
        return sorted(self.waits)

    def start(self) -> None:
        for index in range(self.places):
            self.begin(index)

    def begin(self, index: int) -> None:
        """Begin a connection."""
        self.began_ns[index] = time.perf_counter_ns()
        self.open += 1

    def finished(self, index: int) -> None:
        """Account for a connection whose message came back right, and begin the next one."""
        self.waits.append(self.now_ns - self.began_ns[index])
        self.at[index] = (self.at[index] + self.size) % self.period
        self.echoes += 1
        self.open -= 1
        if not self.stopping:
            self.begin(index)

    def unanswered(self) -> int:
        return self.open

    def failed(self, index: int, code: int) -> NoReturn:
        hint = " (every port of this machine is taken or waits)" if code == errno.EADDRNOTAVAIL else ""
        raise LoadError(f"connection {index}: {os.strerror(code)}{hint}")

    def cut_short(self, index: int, nbytes: int) -> NoReturn:
        raise LoadError(f"connection {index}: the server closed it after {nbytes} of {self.size} bytes")


class EpollChurn(Churn):
    """Sockets that do not block, and a system call for each step."""

    backend = "epoll"

    def __init__(self, address: Address, places: int, size: int) -> None:
        super().__init__(address, places, size)
        self.epoll = select.epoll()
        self.socks: dict[int, tuple[int, socket.socket]] = {}
        self.unsent = [b""] * places
        self.parts: list[list[bytes]] = [[] for _ in range(places)]
        self.missing = [0] * places

    def close(self) -> None:
        self.epoll.close()
        for _, sock in self.socks.values():
            sock.close()

    def begin(self, index: int) -> None:
        super().begin(index)
        sock = socket.socket(self.family)
        self.socks[sock.fileno()] = (index, sock)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = sock.connect_ex(self.address)
        if code not in (0, errno.EINPROGRESS):
            self.failed(index, code)
        at = self.at[index]
        self.unsent[index] = self.block[at : at + self.size]
        self.parts[index].clear()
        self.missing[index] = self.size
        self.epoll.register(sock.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def turn(self, timeout_ns: int | None = None) -> None:
        events = self.epoll.poll()
        self.begin_turn()
        for fd, event in events:
            index, sock = self.socks[fd]
            try:
                self.step(index, sock, event)
            except OSError as error:
                self.failed(index, error.errno or 0)

    def step(self, index: int, sock: socket.socket, event: int) -> None:
        """Go on as far as a connection's socket lets us."""
        if event & select.EPOLLOUT and self.unsent[index]:
            self.unsent[index] = self.unsent[index][sock.send(self.unsent[index]) :]
            if not self.unsent[index]:
                self.epoll.modify(sock.fileno(), select.EPOLLIN)
        if event & ~select.EPOLLOUT:
            data = sock.recv(self.missing[index])
            if not data:
                self.cut_short(index, self.size - self.missing[index])
            self.parts[index].append(data)
            self.missing[index] -= len(data)
            if not self.missing[index]:
                answer = b"".join(self.parts[index])
                if not self.block.startswith(answer, self.at[index]):
                    self.wrong(index, answer)
                del self.socks[sock.fileno()]
                sock.close()
                self.finished(index)


class RingChurn(Churn):
    """One chain of requests for each connection: what the kernel goes through by itself, in a fixed slot.

    Needs Linux 5.19.
    """

    backend = "ring"

    STEPS = 5
    MOST_PLACES = 32_768 // 8

    # What completes, in user_data beside the index: only what fails of the steps before the receive is heard of.
    RECEIVED = 1 << 20
    CLOSED = 2 << 20

    def __init__(self, address: Address, places: int, size: int) -> None:
        from rawuring import Ring, UnsupportedError, abi

        super().__init__(address, places, size)
        if places > self.MOST_PLACES:
            raise LoadError(f"more than {self.MOST_PLACES:,} connections that come and go: use --client-backend epoll")
        # Every chain of a turn fits: it begins with an empty queue, and no chain is cut.
        self.ring = Ring(ceil_power(self.STEPS * places), register_ring_fd=True)
        try:
            needs = self.ring.lacks("socket_direct")
            if needs:
                raise UnsupportedError("a socket in a fixed slot", needs)
            self.ring.file_table(places)
        except BaseException:
            self.ring.close()
            raise
        if self.family == socket.AF_INET6:
            host, port, flowinfo, scope_id = self.address
            self.sockaddr = abi.SOCKADDR_IN6.pack(
                sin6_family=self.family, sin6_port=port, sin6_flowinfo=flowinfo, sin6_scope_id=scope_id,
                sin6_addr=socket.inet_pton(self.family, host),
            )  # fmt: skip
        else:
            host, port = self.address
            self.sockaddr = abi.SOCKADDR_IN.pack(
                sin_family=self.family, sin_port=port, sin_addr=socket.inet_pton(self.family, host)
            )
        self.sockaddr_addr = ctypes.addressof(ctypes.c_char.from_buffer(self.sockaddr))
        self.block_addr = ctypes.c_void_p.from_buffer(ctypes.c_char_p(self.block)).value or 0
        self.memory = bytearray(places * size)
        self.memory_addr = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        view = memoryview(self.memory)
        self.views = [view[index * size : (index + 1) * size] for index in range(places)]
        self.link = int(abi.SqeFlag.IO_LINK)
        self.link_fixed = self.link | int(abi.SqeFlag.FIXED_FILE)
        self.silent = int(abi.SqeFlag.CQE_SKIP_SUCCESS)

    def close(self) -> None:
        self.ring.close()

    def begin(self, index: int) -> None:
        super().begin(index)
        sq, size, link, silent = self.ring.sq, self.size, self.link_fixed, self.link_fixed | self.silent
        sq.prep_socket_direct(self.family, socket.SOCK_STREAM, 0, index, user_data=index,
                              sqe_flags=self.link | self.silent)  # fmt: skip
        sq.prep_connect(index, self.sockaddr_addr, len(self.sockaddr), user_data=index, sqe_flags=silent)
        sq.prep_send(index, self.block_addr + self.at[index], size, socket.MSG_WAITALL | socket.MSG_NOSIGNAL,
                     user_data=index, sqe_flags=silent)  # fmt: skip
        sq.prep_recv(index, self.memory_addr + index * size, size, socket.MSG_WAITALL,
                     user_data=self.RECEIVED + index, sqe_flags=link)  # fmt: skip
        sq.prep_close_direct(index, user_data=self.CLOSED + index)

    def turn(self, timeout_ns: int | None = None) -> None:
        self.ring.submit_and_wait(1)
        self.begin_turn()
        block, at, views = self.block, self.at, self.views
        for user_data, res, _ in self.ring.completions():
            index = user_data % self.RECEIVED
            if res < 0:
                self.failed(index, -res)
            if user_data < self.RECEIVED:
                raise LoadError(f"connection {index}: a send was cut short")
            if user_data >= self.CLOSED:
                self.finished(index)
            elif res != self.size:
                self.cut_short(index, res)
            elif not block.startswith(views[index], at[index]):
                self.wrong(index, views[index])
