"""`bench.py nop` and `bench.py recv`: what the ring costs by itself, layer by layer.

All contestants live in one process, pinned to one CPU, and take turns; ratios are taken leg by leg
within a round. Time is the CPU time of the thread: nothing here sleeps, so that is what an
undisturbed core would need, and other programs on the machine hardly count. The garbage collector
runs as it always does. Imports rawuring, and the compiled binding `liburing` from PyPI where it is
installed.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import socket
import time
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from rawuring import Ring, SqeBlock, abi
from tools.bench_parts.measure import BenchError, Json, markdown, progress, progress_done, ratios, spread

SIZE = 512
"""Bytes of each receive in the recv benchmark."""


LEAST_NS = 50
"""No request costs less, whatever a coarse clock shows of a short trial."""


class Contestant(Protocol):
    """One way to have requests done."""

    name: str

    def leg(self, batch: int, turns: int) -> int:
        """The nanoseconds of that many turns of that many requests."""

    def check(self, batch: int) -> None:
        """Do it once and look at every result; BenchError if one is wrong."""


def agree(name: str, batch: int, got: Sequence[tuple[int, int]], res: int = 0) -> None:
    """Each request of a batch must have completed once, with that result."""
    if sorted(got) != [(number, res) for number in range(batch)]:
        raise BenchError(f"{name}: a batch of {batch} came back wrong: {got[:8]} ...")


def clock_ns() -> int:
    """What two readings of the clock, one straight after the other, are apart."""
    readings = [time.thread_time_ns() for _ in range(201)]
    return min(later - earlier for earlier, later in zip(readings, readings[1:], strict=False))


class RawNop:
    """prep_nop for each, submit_and_wait, and a look at every completion."""

    name = "raw"

    def __init__(self, ring: Ring) -> None:
        self.ring = ring

    def leg(self, batch: int, turns: int) -> int:
        ring = self.ring
        prep_nop = ring.sq.prep_nop
        began_ns = time.thread_time_ns()
        for _ in range(turns):
            for number in range(batch):
                prep_nop(user_data=number)
            ring.submit_and_wait(batch)
            for user_data, res, cqe_flags in ring.completions():
                pass
        return time.thread_time_ns() - began_ns

    def check(self, batch: int) -> None:
        for number in range(batch):
            self.ring.sq.prep_nop(user_data=number)
        self.check_completions(batch)

    def check_completions(self, batch: int) -> None:
        self.ring.submit_and_wait(batch)
        agree(self.name, batch, [(user_data, res) for user_data, res, _ in self.ring.completions()])


class RawNopBlock(RawNop):
    """SQEs made once, numbered anew each time and copied as a block; for batches of a fixed size."""

    name = "raw block"

    def block(self, batch: int) -> SqeBlock:
        block = SqeBlock(batch)
        for _ in range(batch):
            block.prep_nop()
        return block

    def leg(self, batch: int, turns: int) -> int:
        ring, put_block, block = self.ring, self.ring.sq.put_block, self.block(batch)
        column, numbers = block.column("user_data"), array("Q", range(batch))
        began_ns = time.thread_time_ns()
        for _ in range(turns):
            column[:] = numbers
            put_block(block)
            ring.submit_and_wait(batch)
            for user_data, res, cqe_flags in ring.completions():
                pass
        return time.thread_time_ns() - began_ns

    def check(self, batch: int) -> None:
        block = self.block(batch)
        block.column("user_data")[:] = array("Q", range(batch))
        self.ring.sq.put_block(block)
        self.check_completions(batch)


class OwnedNop:
    """A handle for each, all kept until each has been asked for its result."""

    name = "owned"

    def __init__(self, ring: Ring) -> None:
        self.ring = ring

    def leg(self, batch: int, turns: int) -> int:
        nop = self.ring.nop
        began_ns = time.thread_time_ns()
        for _ in range(turns):
            operations = [nop() for _ in range(batch)]
            for operation in operations:
                operation.wait()
        return time.thread_time_ns() - began_ns

    def check(self, batch: int) -> None:
        operations = [self.ring.nop() for _ in range(batch)]
        agree(self.name, batch, [(number, operation.wait()) for number, operation in enumerate(operations)])


class Binding:
    """A ring of the compiled binding, set up like ours."""

    def __init__(self, entries: int, setup_flags: int) -> None:
        self.library = importlib.import_module("liburing")
        self.ring = self.library.Ring()
        self.library.io_uring_queue_init(entries, self.ring, setup_flags)
        self.library.io_uring_register_ring_fd(self.ring)

    def close(self) -> None:
        self.library.io_uring_queue_exit(self.ring)

    def take(self) -> list[tuple[int, int]]:
        """Every completion that is there, in the binding's quickest way that is right at a wrap-around."""
        cqe = self.library.Cqe()
        got = []
        for _ in self.library.CqeIter(self.ring, cqe):
            entry = cqe[0]
            got.append((entry.user_data, entry.res))
        self.library.io_uring_cq_advance(self.ring, len(got))
        return got


class BindingNop:
    """As the binding's own documentation writes it: submit, then wait for each completion and mark it seen."""

    name = "liburing"

    def __init__(self, binding: Binding) -> None:
        self.binding = binding

    def leg(self, batch: int, turns: int) -> int:
        library, ring = self.binding.library, self.binding.ring
        get_sqe, prep_nop, submit = library.io_uring_get_sqe, library.io_uring_prep_nop, library.io_uring_submit
        wait_cqe, cqe_seen, cqe = library.io_uring_wait_cqe, library.io_uring_cqe_seen, library.Cqe()
        began_ns = time.thread_time_ns()
        for _ in range(turns):
            for number in range(batch):
                sqe = get_sqe(ring)
                prep_nop(sqe)
                sqe.user_data = number
            submit(ring)
            for _ in range(batch):
                wait_cqe(ring, cqe)
                entry = cqe[0]
                entry.user_data
                entry.res
                cqe_seen(ring, entry)
        return time.thread_time_ns() - began_ns

    def check(self, batch: int) -> None:
        library, ring = self.binding.library, self.binding.ring
        for number in range(batch):
            sqe = library.io_uring_get_sqe(ring)
            library.io_uring_prep_nop(sqe)
            sqe.user_data = number
        library.io_uring_submit_and_wait(ring, batch)
        agree(self.name, batch, self.binding.take())


class BindingNopIter(BindingNop):
    """The binding's quickest way for batches of any size: one call that submits and waits, one iterator, one advance."""

    name = "liburing iter"

    def leg(self, batch: int, turns: int) -> int:
        library, ring = self.binding.library, self.binding.ring
        get_sqe, prep_nop = library.io_uring_get_sqe, library.io_uring_prep_nop
        submit_and_wait, cq_advance = library.io_uring_submit_and_wait, library.io_uring_cq_advance
        cqe_iter, cqe = library.CqeIter, library.Cqe()
        began_ns = time.thread_time_ns()
        for _ in range(turns):
            for number in range(batch):
                sqe = get_sqe(ring)
                prep_nop(sqe)
                sqe.user_data = number
            submit_and_wait(ring, batch)
            for index in cqe_iter(ring, cqe):
                entry = cqe[0]
                entry.user_data
                entry.res
            cq_advance(ring, index + 1)
        return time.thread_time_ns() - began_ns


class BindingNopBlock:
    """The binding's quickest way, for batches of a fixed size: SQEs made once, filled anew, copied as a block."""

    name = "liburing block"

    MOST = 128
    """An Sqe of the binding holds at most 255."""

    def __init__(self, binding: Binding) -> None:
        self.binding = binding

    def blocks(self, batch: int) -> tuple[list[Any], list[tuple[int, Any]]]:
        sizes = [self.MOST] * (batch // self.MOST) + [batch % self.MOST] * (batch % self.MOST > 0)
        blocks = [self.binding.library.Sqe(size) for size in sizes]
        sqes = [block[index] for block, size in zip(blocks, sizes, strict=True) for index in range(size)]
        return blocks, list(enumerate(sqes))

    def leg(self, batch: int, turns: int) -> int:
        library, ring = self.binding.library, self.binding.ring
        put_sqe, prep_nop = library.put_sqe, library.io_uring_prep_nop
        submit_and_wait, cq_advance = library.io_uring_submit_and_wait, library.io_uring_cq_advance
        cqe_iter, cqe = library.CqeIter, library.Cqe()
        blocks, sqes = self.blocks(batch)
        began_ns = time.thread_time_ns()
        for _ in range(turns):
            for number, sqe in sqes:
                prep_nop(sqe)
                sqe.user_data = number
            for block in blocks:
                put_sqe(ring, block)
            submit_and_wait(ring, batch)
            for index in cqe_iter(ring, cqe):
                entry = cqe[0]
                entry.user_data
                entry.res
            cq_advance(ring, index + 1)
        return time.thread_time_ns() - began_ns

    def check(self, batch: int) -> None:
        library, ring = self.binding.library, self.binding.ring
        blocks, sqes = self.blocks(batch)
        for number, sqe in sqes:
            library.io_uring_prep_nop(sqe)
            sqe.user_data = number
        for block in blocks:
            library.put_sqe(ring, block)
        library.io_uring_submit_and_wait(ring, batch)
        agree(self.name, batch, self.binding.take())


class Receives:
    """Sockets and memory for the recv benchmark: as many bytes wait as a batch can receive."""

    def __init__(self, most: int) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.buffers = [bytearray(SIZE) for _ in range(most)]
        self.addresses = [ctypes.addressof(ctypes.c_char.from_buffer(buffer)) for buffer in self.buffers]

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()

    def provide(self, batch: int) -> None:
        self.theirs.sendall(bytes(SIZE * batch))


class RawRecv:
    """prep_recv with addresses the caller has and keeps alive."""

    name = "raw"

    def __init__(self, ring: Ring, receives: Receives) -> None:
        self.ring = ring
        self.receives = receives

    def leg(self, batch: int, turns: int) -> int:
        ring, prep_recv, fd = self.ring, self.ring.sq.prep_recv, self.receives.ours.fileno()
        numbered = list(enumerate(self.receives.addresses[:batch]))
        spent_ns = 0
        for _ in range(turns):
            self.receives.provide(batch)
            began_ns = time.thread_time_ns()
            for number, address in numbered:
                prep_recv(fd, address, SIZE, 0, user_data=number)
            spent_ns += time.thread_time_ns() - began_ns
            ring.submit_and_wait(batch)
            agree(self.name, batch, [(user_data, res) for user_data, res, _ in ring.completions()], SIZE)
        return spent_ns - turns * clock_ns()

    def check(self, batch: int) -> None:
        self.leg(batch, 1)


class OwnedRecv:
    """recv(socket, buffer): it pins the buffer, takes a token and gives a handle."""

    name = "owned"

    def __init__(self, ring: Ring, receives: Receives) -> None:
        self.ring = ring
        self.receives = receives

    def leg(self, batch: int, turns: int) -> int:
        recv, sock, buffers = self.ring.recv, self.receives.ours, self.receives.buffers[:batch]
        spent_ns = 0
        for _ in range(turns):
            self.receives.provide(batch)
            began_ns = time.thread_time_ns()
            operations = [recv(sock, buffer) for buffer in buffers]
            spent_ns += time.thread_time_ns() - began_ns
            agree(self.name, batch, [(number, op.wait()) for number, op in enumerate(operations)], SIZE)
        return spent_ns - turns * clock_ns()

    def check(self, batch: int) -> None:
        self.leg(batch, 1)


class BindingRecv:
    """io_uring_prep_recv of the binding, which pins nothing."""

    name = "liburing"

    def __init__(self, binding: Binding, receives: Receives) -> None:
        self.binding = binding
        self.receives = receives

    def leg(self, batch: int, turns: int) -> int:
        library, ring = self.binding.library, self.binding.ring
        get_sqe, prep_recv, fd = library.io_uring_get_sqe, library.io_uring_prep_recv, self.receives.ours.fileno()
        numbered = list(enumerate(self.receives.buffers[:batch]))
        spent_ns = 0
        for _ in range(turns):
            self.receives.provide(batch)
            began_ns = time.thread_time_ns()
            for number, buffer in numbered:
                sqe = get_sqe(ring)
                prep_recv(sqe, fd, buffer)
                sqe.user_data = number
            spent_ns += time.thread_time_ns() - began_ns
            library.io_uring_submit_and_wait(ring, batch)
            agree(self.name, batch, self.binding.take(), SIZE)
        return spent_ns - turns * clock_ns()

    def check(self, batch: int) -> None:
        self.leg(batch, 1)


@contextlib.contextmanager
def contestants(what: str, most: int) -> Iterator[tuple[list[Contestant], list[str]]]:
    """Those that can run here, and a line for each that cannot."""
    with contextlib.ExitStack() as cleanup:
        entries = 4 * most  # as in a program: the queues do not wrap in every turn
        raw, owned = (cleanup.enter_context(Ring(entries, register_ring_fd=True)) for _ in range(2))
        missing = []
        binding = None
        try:
            binding = Binding(entries, raw.setup_flags & ~abi.Setup.NO_SQARRAY)  # liburing adds that one itself
        except ImportError:
            missing.append("liburing (the compiled binding from PyPI) is not importable by this Python: left out")
        except (AttributeError, OSError) as error:
            missing.append(f"liburing (the compiled binding from PyPI) cannot be used here: {error}")
        else:
            cleanup.callback(binding.close)
        found: list[Contestant]
        if what == "nop":
            found = [RawNop(raw), RawNopBlock(raw), OwnedNop(owned)]
            found += [BindingNop(binding), BindingNopIter(binding), BindingNopBlock(binding)] if binding else []
        else:
            receives = Receives(most)
            cleanup.callback(receives.close)
            found = [RawRecv(raw, receives), OwnedRecv(owned, receives)]
            found += [BindingRecv(binding, receives)] if binding else []
        yield found, missing


def contest(batch: int, pairs: int, leg_s: float, runners: Sequence[Contestant]) -> dict[str, list[float]]:
    """Nanoseconds per request, leg by leg, for each contestant: A B C, A B C, ..."""
    for runner in runners:
        for _ in range(3):
            runner.check(batch)
    trial = 20
    turns = max(1, round(leg_s * 1e9 / max(runners[0].leg(batch, trial) / trial, LEAST_NS * batch)))
    samples: dict[str, list[float]] = {runner.name: [] for runner in runners}
    for number in range(1, pairs + 1):
        progress(f"batch {batch}, round {number} of {pairs}", milestone=number == pairs)
        for runner in runners:
            samples[runner.name].append(runner.leg(batch, turns) / (batch * turns))
    progress_done()
    return samples


def run(what: str, batches: Sequence[int], pairs: int, leg_s: float) -> Json:
    """The whole benchmark as data."""
    most = 1 << (max(batches) - 1).bit_length()
    results = []
    with contestants(what, most) as (runners, missing):
        for batch in batches:
            samples = contest(batch, pairs, leg_s, runners)
            results.append({"batch": batch, "ns": samples})
    return {"benchmark": what, "pairs": pairs, "results": results, "missing": missing}


WHAT = {
    "nop": "CPU time per NOP: queue, submit and wait once per batch, read user_data and res of every completion.",
    "recv": f"CPU time to queue one recv of {SIZE} bytes on a socket that has data. Submitting, receiving and "
    "looking at the results are not in it.",
}

FOOTNOTES = {
    "raw": "raw: `ring.sq.prep_{what}(...)`, integers only.",
    "raw block": "raw block: for batches of one fixed size: SQEs made once (`SqeBlock`), their user_data written anew "
    "each time, from an array that is made once, and copied into the ring as a block.",
    "owned": "owned: `ring.{what}(...)`, handles that hold what the kernel uses.",
    "liburing": "liburing: the compiled binding from PyPI, used as its documentation shows: an SQE from the ring for "
    "each request, wait and seen for each completion; same set-up flags as ours, and its ring fd registered.",
    "liburing iter": "liburing iter: the same with one call that submits and waits, an iterator over the completions "
    "and one advance for all: its quickest way for batches of any size.",
    "liburing block": "liburing block: its quickest way for batches of one fixed size: SQE objects made once, filled "
    "anew each time and copied into the ring as a block.",
}


def report(result: Json) -> str:
    """Markdown: nanoseconds per request and, pair by pair, the ratios that matter."""
    what = result["benchmark"]
    names = list(result["results"][0]["ns"])
    ours = [name for name in names if name.startswith("raw")]
    compared = [("owned", "raw")] + [(our, name) for our in ours for name in names if name.startswith("liburing")]
    header = ["batch"]
    for name in names:
        header += [f"{name} ns", "quartiles"]
    for over, under in compared:
        header += [f"{over} / {under}", "quartiles"]
    rows = []
    for entry in result["results"]:
        row = [str(entry["batch"])]
        for name in names:
            middle = spread(entry["ns"][name])
            row += [middle.text(0), middle.quartiles(0)]
        for over, under in compared:
            middle = spread(ratios(entry["ns"][over], entry["ns"][under]))
            row += [middle.text(3), middle.quartiles(3)]
        rows.append(row)
    notes = [f"* {FOOTNOTES[name].replace('{what}', what)}" for name in names]
    notes += [f"* Missing: {line}" for line in result["missing"]]
    return "\n".join([WHAT[what], "", markdown(header, rows, left=0), "", *notes])
