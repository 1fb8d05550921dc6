"""`bench.py read`: random reads of 4 KiB, at several depths, from page cache and with O_DIRECT, of one file and of many.

All contestants live in one process and take turns; they may use every CPU. What each of them reads is compared with
what was written, once, before anything is timed. Imports rawuring, its neighbours, and the compiled binding `liburing`
from PyPI where it is installed.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import random
import tempfile
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice, repeat
from pathlib import Path
from typing import NoReturn, Protocol

from rawuring import Operation, Ring, SqeBlock, abi
from tools.bench_parts.measure import BenchError, Json, file_system, progress, progress_done
from tools.bench_parts.ring import Binding

BLOCK = 4096

CHECKED = 512
"""How many reads of each contestant are compared with what was written."""

MOST_READS = 1 << 17

Place = tuple[int, int]
"""Which file, and where in it."""

FIXED_FILE = int(abi.SqeFlag.FIXED_FILE)


class Files:
    """Files of blocks that tell who they are."""

    def __init__(self, folder: Path, count: int, nbytes: int) -> None:
        self.paths = [folder / f"{count}-{number}" for number in range(count)]
        self.blocks = max(1, nbytes // count // BLOCK)
        self.fds: list[int] = []
        for file, path in enumerate(self.paths):
            with open(path, "wb") as out:
                for first in range(0, self.blocks, 256):
                    out.write(b"".join(self.block(file, number) for number in range(first, min(first + 256, self.blocks))))
                out.flush()
                os.fsync(out.fileno())  # with O_DIRECT, a read of what was not yet written would write it first

    def block(self, file: int, number: int) -> bytes:
        return (file * self.blocks + number).to_bytes(8, "little") * (BLOCK // 8)

    def content(self, place: Place) -> bytes:
        file, offset = place
        return self.block(file, offset // BLOCK)

    def places(self, count: int) -> list[Place]:
        chosen = random.Random(count)
        return [(chosen.randrange(len(self.paths)), chosen.randrange(self.blocks) * BLOCK) for _ in range(count)]

    @contextlib.contextmanager
    def opened(self, direct: bool) -> Iterator[None]:
        """Have them open, in the page cache as a whole if they are read from there."""
        try:
            for path in self.paths:
                self.fds.append(os.open(path, os.O_RDONLY | (os.O_DIRECT if direct else 0)))
                if not direct:
                    path.read_bytes()
            yield
        finally:
            for fd in self.fds:
                os.close(fd)
            self.fds.clear()


class Contestant(Protocol):
    """One way to have blocks read, `depth` at a time."""

    name: str

    def read(self, places: Sequence[Place]) -> None:
        """Read them all. Of no more than `depth` places, the one at index i ends up in buffer i."""

    def buffer(self, index: int) -> bytes:
        """What is in a buffer."""

    def close(self) -> None: ...


def aligned(count: int) -> tuple[mmap.mmap, list[memoryview]]:
    """Memory for so many blocks, at addresses that O_DIRECT takes, and a view of each."""
    memory = mmap.mmap(-1, count * BLOCK)
    view = memoryview(memory)
    return memory, [view[at : at + BLOCK] for at in range(0, count * BLOCK, BLOCK)]


def failed(name: str, res: int) -> NoReturn:
    what = os.strerror(-res) if res < 0 else f"{res} bytes instead of {BLOCK}"
    raise BenchError(f"{name}: a read gave {what}")


class RawRing:
    """prep_read_fixed on registered files and one registered buffer: a slot is queued anew as it completes."""

    name = "ring"

    def __init__(self, fds: Sequence[int], depth: int) -> None:
        self.depth = depth
        self.memory, self.views = aligned(depth)
        first = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.addrs = [first + slot * BLOCK for slot in range(depth)]
        self.ring = Ring(depth, register_ring_fd=True)
        self.ring.register_buffers([self.memory])
        self.ring.file_table(len(fds)).update(0, list(fds))

    def read(self, places: Sequence[Place]) -> None:
        ring, prep_read_fixed = self.ring, self.ring.sq.prep_read_fixed
        for addr, (file, offset) in zip(self.addrs, places):
            prep_read_fixed(file, addr, BLOCK, offset, 0, user_data=addr, sqe_flags=FIXED_FILE)
        left = chain(places[self.depth :], repeat(None))
        in_flight = min(self.depth, len(places))
        while in_flight:
            ring.submit_and_wait(1)
            for (addr, res, _), place in zip(ring.completions(), left):
                if res != BLOCK:
                    failed(self.name, res)
                if place is None:
                    in_flight -= 1
                    continue
                file, offset = place
                prep_read_fixed(file, addr, BLOCK, offset, 0, user_data=addr, sqe_flags=FIXED_FILE)

    def buffer(self, index: int) -> bytes:
        return bytes(self.views[index])

    def close(self) -> None:
        self.ring.close()


class RawBlock(RawRing):
    """The same with an SqeBlock: of the reads of a turn, what differs from those of the turn before is written, a field
    of all at a time. From the page cache they complete in their order, and the buffers stay where they are.
    """

    name = "ring, block"

    def __init__(self, fds: Sequence[int], depth: int) -> None:
        super().__init__(fds, depth)
        self.block = SqeBlock(depth)
        for addr in self.addrs:
            self.block.prep_read_fixed(0, addr, BLOCK, 0, 0, user_data=addr, sqe_flags=FIXED_FILE)
        self.in_block = tuple(self.addrs)  # whose reads are in its first SQEs

    def read(self, places: Sequence[Place]) -> None:
        ring, block = self.ring, self.block
        fds, offs, addrs, numbers = map(block.column, ("fd", "off", "addr", "user_data"))
        free = tuple(self.addrs)
        queued = in_flight = 0
        while queued < len(places) or in_flight:
            if part := places[queued : queued + len(free)]:
                if free != self.in_block:
                    self.in_block = free
                    addrs[: len(free)] = numbers[: len(free)] = array("Q", free)
                count = len(part)
                files, offsets = zip(*part)
                fds[:count] = array("i", files)
                offs[:count] = array("Q", offsets)
                ring.sq.put_block(block, 0, count)
                queued += count
                in_flight += count
            ring.submit_and_wait(1)
            free, results, _ = zip(*ring.completions())
            in_flight -= len(free)
            if results.count(BLOCK) != len(results):
                failed(self.name, next(res for res in results if res != BLOCK))


class OwnedRing:
    """read_fixed with a callback for each slot, which queues the slot's next read."""

    name = "ring, owned"

    def __init__(self, fds: Sequence[int], depth: int) -> None:
        self.depth = depth
        self.memory, self.views = aligned(depth)
        self.ring = Ring(depth, register_ring_fd=True)
        self.buffers = self.ring.register_buffers([self.memory])
        table = self.ring.file_table(len(fds))
        table.update(0, list(fds))
        self.files = [table[slot] for slot in range(len(fds))]

    def read(self, places: Sequence[Place]) -> None:
        ring, files, buffers = self.ring, self.files, self.buffers
        left = iter(places)

        def reader(start: int) -> Callable[[Operation[int], int, int], None]:
            def done(operation: object, res: int, cqe_flags: int) -> None:
                if res != BLOCK:
                    failed(self.name, res)
                go_on()

            def go_on() -> None:
                for file, offset in islice(left, 1):
                    ring.read_fixed(files[file], buffers, 0, offset, start=start, nbytes=BLOCK, callback=done)

            go_on()
            return done

        for slot in range(self.depth):
            reader(slot * BLOCK)
        ring.run()

    def buffer(self, index: int) -> bytes:
        return bytes(self.views[index])

    def close(self) -> None:
        self.ring.close()


class Loop:
    """os.preadv, one after the other."""

    name = "preadv"

    def __init__(self, fds: Sequence[int], depth: int) -> None:
        self.fds = fds
        _, self.views = aligned(1)

    def read(self, places: Sequence[Place]) -> None:
        preadv, fds, buffers = os.preadv, self.fds, self.views
        for file, offset in places:
            res = preadv(fds[file], buffers, offset)
            if res != BLOCK:
                failed(self.name, res)

    def buffer(self, index: int) -> bytes:
        return bytes(self.views[0])

    def close(self) -> None:
        pass


class Pool:
    """A ThreadPoolExecutor of `depth` threads, and a future for each read: what event loops use for files."""

    name = "thread pool"

    def __init__(self, fds: Sequence[int], depth: int) -> None:
        self.fds = fds
        self.depth = depth
        self.mine = threading.local()
        self.read_last: list[bytes] = []
        self.pool = ThreadPoolExecutor(depth, initializer=self.prepare)

    def prepare(self) -> None:
        _, self.mine.buffers = aligned(1)

    def one(self, place: Place) -> int:
        file, offset = place
        return os.preadv(self.fds[file], self.mine.buffers, offset)

    def one_kept(self, place: Place) -> bytes:
        if self.one(place) != BLOCK:
            return b""
        return bytes(self.mine.buffers[0])

    def read(self, places: Sequence[Place]) -> None:
        if len(places) <= self.depth:
            self.read_last = list(self.pool.map(self.one_kept, places))
            return
        for res in self.pool.map(self.one, places):
            if res != BLOCK:
                failed(self.name, res)

    def buffer(self, index: int) -> bytes:
        return self.read_last[index]

    def close(self) -> None:
        self.pool.shutdown()


class Threads:
    """`depth` threads that hand nothing over, each with every depth-th read: the best of threads."""

    name = "threads"

    def __init__(self, fds: Sequence[int], depth: int) -> None:
        self.fds = fds
        self.depth = depth
        _, self.views = aligned(depth)
        self.pool = ThreadPoolExecutor(depth)

    def share(self, index: int, places: Sequence[Place]) -> None:
        preadv, fds, buffers = os.preadv, self.fds, [self.views[index]]
        for file, offset in places[index :: self.depth]:
            res = preadv(fds[file], buffers, offset)
            if res != BLOCK:
                failed(self.name, res)

    def read(self, places: Sequence[Place]) -> None:
        list(self.pool.map(self.share, range(self.depth), repeat(places)))

    def buffer(self, index: int) -> bytes:
        return bytes(self.views[index])

    def close(self) -> None:
        self.pool.shutdown()


class BindingReads:
    """The compiled binding as its documentation writes it, with registered files and buffers: submit, then wait for
    each completion and mark it seen.
    """

    name = "liburing"

    def __init__(self, fds: Sequence[int], depth: int) -> None:
        self.depth = depth
        with Ring(depth) as ring:
            setup_flags = ring.setup_flags & ~abi.Setup.NO_SQARRAY  # liburing adds that one itself
        self.binding = Binding(depth, setup_flags)
        library, ring_of_binding = self.binding.library, self.binding.ring
        self.buffers = [bytearray(BLOCK) for _ in range(depth)]  # the one kind of memory it takes
        self.registered = library.Iovec(self.buffers), library.FileIndex(list(fds))
        library.io_uring_register_buffers(ring_of_binding, self.registered[0])
        library.io_uring_register_files(ring_of_binding, self.registered[1])

    def read(self, places: Sequence[Place]) -> None:
        library, ring, buffers = self.binding.library, self.binding.ring, self.buffers
        get_sqe, prep_read_fixed = library.io_uring_get_sqe, library.io_uring_prep_read_fixed
        submit, wait_cqe, cqe_seen = library.io_uring_submit, library.io_uring_wait_cqe, library.io_uring_cqe_seen
        cqe = library.Cqe()
        left = iter(places)
        free = list(range(self.depth))
        while True:
            for slot, (file, offset) in zip(free, left):
                sqe = get_sqe(ring)
                prep_read_fixed(sqe, file, buffers[slot], slot, offset)
                sqe.flags = FIXED_FILE
                sqe.user_data = slot
            taken = submit(ring)
            if not taken:
                return
            free = []
            for _ in range(taken):
                wait_cqe(ring, cqe)
                entry = cqe[0]
                if entry.res != BLOCK:
                    failed(self.name, entry.res)
                free.append(entry.user_data)
                cqe_seen(ring, entry)

    def buffer(self, index: int) -> bytes:
        return bytes(self.buffers[index])

    def close(self) -> None:
        self.binding.close()


class BindingReadsIter(BindingReads):
    """The binding in its quickest way: one call that submits and waits, one iterator over the completions, one advance
    for all.
    """

    name = "liburing iter"

    def read(self, places: Sequence[Place]) -> None:
        library, ring, buffers = self.binding.library, self.binding.ring, self.buffers
        get_sqe, prep_read_fixed = library.io_uring_get_sqe, library.io_uring_prep_read_fixed
        submit_and_wait, cq_advance = library.io_uring_submit_and_wait, library.io_uring_cq_advance
        cqe_iter, cqe = library.CqeIter, library.Cqe()
        for slot, (file, offset) in zip(range(self.depth), places):
            sqe = get_sqe(ring)
            prep_read_fixed(sqe, file, buffers[slot], slot, offset)
            sqe.flags = FIXED_FILE
            sqe.user_data = slot
        left = chain(places[self.depth :], repeat(None))
        in_flight = min(self.depth, len(places))
        while in_flight:
            submit_and_wait(ring, 1)
            done = 0
            for _, place in zip(cqe_iter(ring, cqe), left):
                entry = cqe[0]
                done += 1
                if entry.res != BLOCK:
                    failed(self.name, entry.res)
                if place is None:
                    in_flight -= 1
                    continue
                slot = entry.user_data
                file, offset = place
                sqe = get_sqe(ring)
                prep_read_fixed(sqe, file, buffers[slot], slot, offset)
                sqe.flags = FIXED_FILE
                sqe.user_data = slot
            cq_advance(ring, done)


KINDS: tuple[Callable[[Sequence[int], int], Contestant], ...] = (
    RawRing, RawBlock, OwnedRing, Loop, Pool, Threads, BindingReads, BindingReadsIter,
)  # fmt: skip
BINDINGS = (BindingReads, BindingReadsIter)


def verify(contestant: Contestant, files: Files, depth: int) -> None:
    """Compare what it reads with what was written, byte by byte."""
    at_once = 1 if isinstance(contestant, Loop) else depth
    places = files.places(CHECKED)
    for first in range(0, len(places), at_once):
        part = places[first : first + at_once]
        contestant.read(part)
        for index, place in enumerate(part):
            if contestant.buffer(index) != files.content(place):
                raise BenchError(f"{contestant.name}: block {place[1] // BLOCK} of file {place[0]} came back wrong")


@contextlib.contextmanager
def contestants(files: Files, depth: int) -> Iterator[tuple[list[Contestant], list[str]]]:
    """Those that can run here and read rightly, and a line for each that cannot."""
    with contextlib.ExitStack() as cleanup:
        found: list[Contestant] = []
        missing: list[str] = []
        for kind in KINDS:
            try:
                contestant = kind(files.fds, depth)
                cleanup.callback(contestant.close)
                verify(contestant, files, depth)
            except ImportError:
                absent = "liburing (the compiled binding from PyPI) is not importable by this Python"
            except (AttributeError, BenchError, OSError) as error:
                if kind not in BINDINGS:
                    raise
                absent = f"liburing (the compiled binding from PyPI) cannot do this: {error}"
            else:
                found.append(contestant)
                continue
            missing += [absent] if absent not in missing else []
        yield found, missing


def leg(contestant: Contestant, places: Sequence[Place]) -> Json:
    began_ns, began_cpu_ns = time.perf_counter_ns(), time.process_time_ns()
    contestant.read(places)
    return {
        "reads": len(places),
        "wall_ns": time.perf_counter_ns() - began_ns,
        "cpu_ns": time.process_time_ns() - began_cpu_ns,
    }


def contest(files: Files, depth: int, what: str, pairs: int, leg_s: float) -> tuple[dict[str, list[Json]], list[str]]:
    """The legs of each contestant: A B C, A B C, ..."""
    places = files.places(MOST_READS)
    with contestants(files, depth) as (runners, missing):
        counts = {}
        for runner in runners:
            trial = leg(runner, places[:depth])
            while trial["wall_ns"] < leg_s / 4 * 1e9 and trial["reads"] < MOST_READS:
                trial = leg(runner, places[: 4 * trial["reads"]])
            counts[runner.name] = min(MOST_READS, max(depth, round(trial["reads"] * leg_s * 1e9 / trial["wall_ns"])))
        legs: dict[str, list[Json]] = {runner.name: [] for runner in runners}
        for number in range(1, pairs + 1):
            progress(f"reads, {what}, depth {depth}, round {number} of {pairs}", milestone=number == pairs)
            for runner in runners:
                legs[runner.name].append(leg(runner, places[: counts[runner.name]]))
        progress_done()
    return legs, missing


def refusal(folder: Path) -> str:
    """Why files in that folder cannot be read with O_DIRECT; empty if they can."""
    path = folder / "direct"
    path.write_bytes(bytes(BLOCK))
    _, buffers = aligned(1)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
        try:
            os.preadv(fd, buffers, 0)
        finally:
            os.close(fd)
    except OSError as error:
        return f"O_DIRECT: {file_system(folder)} refuses it here ({error.strerror})"
    finally:
        path.unlink()
    return ""


def run(
    depths: Sequence[int], counts: Sequence[int], nbytes: int, pairs: int, leg_s: float, folder: Path | None
) -> Json:
    """The whole benchmark as data."""
    results = []
    missing: list[str] = []
    with tempfile.TemporaryDirectory(prefix="bench-", dir=folder) as name:
        place = Path(name)
        why_not = refusal(place)
        missing += [why_not] if why_not else []
        where = file_system(place)
        for count in counts:
            progress(f"writing {count} files")
            files = Files(place, count, nbytes)
            for direct in [False] if why_not else [False, True]:
                for depth in depths:
                    what = f"{'O_DIRECT' if direct else 'page cache'}, {count} file{'s' * (count > 1)}"
                    with files.opened(direct):
                        legs, absent = contest(files, depth, what, pairs, leg_s)
                    results.append({"direct": direct, "files": count, "depth": depth, "legs": legs})
                    missing += [f"{line} ({what})" for line in absent if f"{line} ({what})" not in missing]
    return {
        "benchmark": "read", "pairs": pairs, "leg_s": leg_s, "nbytes": nbytes, "file_system": where,
        "results": results, "missing": missing,
    }  # fmt: skip
