"""What the kernel may still write to, and what completions bring, outlives every way of letting go of it.

Each test is a program in a process of its own, since a failure may write into any memory. Such
memory is found by its pattern: a buffer that is let go is replaced by look-alikes of the same
size, and none of them may change when the data arrives.
"""

from __future__ import annotations

import os
import socket
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import RunChild
from emulation import HANG_S

PRELUDE = f"HANG_S = {HANG_S}\n" + textwrap.dedent(
    """\
    import atexit, errno, gc, os, signal, socket, sys, threading, time, warnings, weakref
    from rawuring import ForkedRingError, Ring, RingClosedError, WrongThreadError, abi
    from rawuring.ring import closing

    HANG_NS = HANG_S * 10**9
    SIZE = 256 * 1024

    class Buffer(bytearray):
        "A bytearray whose end can be seen."

    def look_alikes(size=SIZE):
        return [bytearray(b"\\xAA") * size for _ in range(64)]

    def assert_untouched(memory):
        for each in memory:
            assert each.count(b"\\xAA") == len(each), "the kernel wrote into memory that is not its own"

    def assert_eof(sock):
        sock.settimeout(HANG_S)
        try:
            assert sock.recv(1) == b"", "the other end is still open"
        except ConnectionResetError:
            pass

    def open_fds():
        return sum(os.path.exists(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd"))

    def good(op, res):
        if res < 0:
            raise op.error(res)
        return res

    def finish(ring):
        while ring.in_flight:
            assert ring.run_once(HANG_NS)

    def pair():
        ours, theirs = socket.socketpair()
        theirs.settimeout(HANG_S)
        return ours, theirs

    @atexit.register
    def close_sockets():
        for each in gc.get_objects():
            if isinstance(each, socket.socket):
                each.close()

    """
)


def run(run_child: RunChild, code: str, *arguments: str) -> str:
    return run_child(PRELUDE + textwrap.dedent(code), *arguments).stdout


def until_it_works(act: Callable[[], object]) -> None:
    deadline = time.monotonic() + HANG_S
    while True:
        try:
            act()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


# --- memory


RECEIVES = {
    "recv": "ring.recv(ours, Buffer(SIZE), socket.MSG_WAITALL)",
    "read": "ring.read(ours, Buffer(SIZE))",
    "readv": "ring.readv(ours, [Buffer(SIZE // 2), Buffer(SIZE // 2)])",
    "recvmsg": "ring.recvmsg(ours, [Buffer(SIZE)], 256)",
}


@pytest.mark.pitfall("memory is the kernel's until it says so")
@pytest.mark.parametrize("receive", RECEIVES)
def test_a_dropped_buffer_is_kept_until_the_final_completion(run_child: RunChild, receive: str) -> None:
    run(
        run_child,
        f"""
        ours, theirs = pair()
        seen = []
        class Buffer(Buffer):
            def __init__(self, size):
                super().__init__(size)
                seen.append(weakref.ref(self))
        with Ring(8) as ring:
            {RECEIVES[receive]}
            ring.submit()
            gc.collect()
            assert all(ref() is not None for ref in seen)
            memory = look_alikes() + look_alikes(SIZE // 2)
            def send():
                theirs.sendall(b"x" * SIZE)
                theirs.shutdown(socket.SHUT_WR)
            threading.Thread(target=send).start()
            finish(ring)
            while ours.recv(SIZE):  # what came was less than all, perhaps
                pass
            assert_untouched(memory)
            gc.collect()
            assert all(ref() is None for ref in seen), "the buffer was kept for ever"
        """,
    )


SENDS = {
    "send": "ring.send(ours, data, socket.MSG_WAITALL)",
    "write": "ring.write(ours, memoryview(data))",
    "writev": "ring.writev(ours, [data])",
    "sendmsg": "ring.sendmsg(ours, [data], msg_flags=socket.MSG_WAITALL)",
}


@pytest.mark.pitfall("memory is the kernel's until it says so")
@pytest.mark.parametrize("kind", ["bytes", "bytearray"])
@pytest.mark.parametrize("send", SENDS)
def test_dropped_data_is_kept_until_it_is_sent(run_child: RunChild, send: str, kind: str) -> None:
    run(
        run_child,
        f"""
        ours, theirs = pair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with Ring(8) as ring:
            data = {kind}(b"d" * (1 << 20))
            op = {SENDS[send]}
            ring.submit()
            del data
            gc.collect()
            memory = [bytearray(b"\\xAA") * (1 << 20) for _ in range(16)]
            received = bytearray()
            def drain():
                while chunk := theirs.recv(1 << 16):
                    received.extend(chunk)
            thread = threading.Thread(target=drain)
            thread.start()
            sent = op.wait(HANG_NS)
            ours.close()
            theirs.shutdown(socket.SHUT_WR)
            thread.join()
            assert sent > 0 and received == b"d" * sent, (sent, len(received))
            assert_untouched(memory)
        """,
    )


@pytest.mark.pitfall("memory is the kernel's until it says so")
def test_what_a_request_points_to_is_kept_where_a_worker_reads_it(run_child: RunChild) -> None:
    run(
        run_child,
        """
        ASYNC = int(abi.SqeFlag.ASYNC)
        listener = socket.create_server(("127.0.0.1", 0))
        sock = socket.socket()
        with Ring(8) as ring:
            ops = [
                ring.openat("/" * 3000 + "dev/null", sqe_flags=ASYNC),
                ring.connect(sock, listener.getsockname(), sqe_flags=ASYNC),
            ]
            timer = ring.timeout(1_000_000)
            ring.submit()
            gc.collect()
            memory = look_alikes(3009) + look_alikes(16)
            os.close(ops[0].wait(HANG_NS))
            assert ops[1].wait(HANG_NS) == 0
            assert timer.wait_cqe(HANG_NS)[0] == -errno.ETIME
            assert_untouched(memory)
        """,
    )


@pytest.mark.pitfall("a cancelled request may complete all the same")
def test_a_cancelled_operation_may_complete_all_the_same(run_child: RunChild) -> None:
    run(
        run_child,
        """
        ours, theirs = pair()
        theirs.send(b"data")
        with Ring(8) as ring:
            buffer = bytearray(64)
            op = ring.recv(ours, buffer)
            op.cancel()
            assert op.wait() == 4 and buffer[:4] == b"data"
            op.cancel()
            finish(ring)
            # Cancelled and dropped: the memory is the kernel's until it says so.
            seen = weakref.ref(buffer := Buffer(SIZE))
            ring.recv(ours, buffer).cancel()
            del buffer
            gc.collect()
            assert seen() is not None
            memory = look_alikes()
            theirs.send(b"late")
            finish(ring)
            gc.collect()
            assert seen() is None
            assert_untouched(memory)
        """,
    )


@pytest.mark.pitfall("a cancelled request may complete all the same")
def test_closing_a_file_leaves_its_requests_and_their_memory(run_child: RunChild) -> None:
    run(
        run_child,
        """
        ours, theirs = pair()
        with Ring(8) as ring:
            buffer = bytearray(b"\\xAA" * 8)
            old = ring.recv(ours, buffer)
            ring.submit()
            number = ours.fileno()
            ours.close()
            others, friends = pair()
            others.close()
            os.dup2(friends.fileno(), number)  # the number means something else now
            new = ring.recv(number, reused := bytearray(b"\\xAA" * 8))
            ring.submit()
            theirs.send(b"old")
            assert old.wait(HANG_NS) == 3 and buffer[:3] == b"old"
            assert not new.done or new.wait() == 0
            assert_untouched([reused])
            assert new.wait(HANG_NS) == 0
            os.close(number)
            friends.close()
        """,
    )


REQUESTS = {
    "recv": "ring.recv(ours, buffer)",
    "read": "ring.read(ours, buffer)",
    "recvmsg": "ring.recvmsg(ours, [buffer])",
    "multishot": "ring.recv_multishot(ours, pool)",
    "raw": "ring.sq.prep_recv(ours.fileno(), pool.addr, 64, 0)",
}


@pytest.mark.pitfall("memory is the kernel's until it says so")
@pytest.mark.parametrize("flags", ["0", "abi.Setup.SQPOLL"])
@pytest.mark.parametrize("request_", REQUESTS)
def test_nothing_is_written_after_close(run_child: RunChild, request_: str, flags: str) -> None:
    run(
        run_child,
        f"""
        ours, theirs = pair()
        ring = Ring(8, {flags})
        buffer = bytearray(b"\\xAA" * SIZE)
        pool = ring.buffer_ring(2, SIZE)
        memory = weakref.ref(pool._memory)
        {REQUESTS[request_]}
        ring.submit()
        ring.close()
        theirs.send(b"x" * 64)
        ring.close()
        assert not closing._kept
        buffer.extend(b"\\xAA")
        del pool
        gc.collect()
        assert memory() is None
        alike = look_alikes()
        assert ours.recv(64) == b"x" * 64, "it went to a closed ring"
        assert_untouched([*alike, buffer])
        """,
    )


def test_what_was_never_submitted_is_dropped_by_close(run_child: RunChild) -> None:
    run(
        run_child,
        """
        ours, theirs = pair()
        ring = Ring(8)
        op, accept = ring.send(ours, b"never"), ring.recv(ours, bytearray(8))
        ring.close()
        for each in (op, accept):
            try:
                each.wait()
            except OSError as error:
                assert error.errno == errno.ECANCELED
            else:
                raise AssertionError
        theirs.setblocking(False)
        try:
            raise AssertionError(theirs.recv(8))
        except BlockingIOError:
            pass
        """,
    )


def test_memory_is_kept_when_the_kernel_does_not_let_go(run_child: RunChild) -> None:
    # Another copy of the ring's fd, of which nobody knows, keeps the ring alive.
    run(
        run_child,
        """
        ours, theirs = pair()
        ring = Ring(8)
        pool = ring.buffer_ring(2, SIZE)
        ring.sq.prep_recv(ours.fileno(), pool.addr, SIZE, 0)
        ring.submit()
        copy = os.dup(ring.fileno())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ring.close()
        assert ["kernel" in str(warning.message) for warning in caught] == [True], caught
        assert len(closing._kept) == 1
        kept = pool.addr
        del pool, ring
        gc.collect()
        with open("/proc/self/maps") as maps:
            spans = [line.split()[0].split("-") for line in maps]
        assert any(int(start, 16) <= kept < int(end, 16) for start, end in spans), "it was unmapped"
        os.close(copy)
        """,
    )


@pytest.mark.parametrize("table", ["made", "none"])
def test_closing_does_not_wait_for_requests_that_use_a_slot(run_child: RunChild, table: str) -> None:
    # Before Linux 6.13 the kernel waits for them before it gives up a table of files.
    run(
        run_child,
        f"""
        from rawuring import register
        reader, writer = os.pipe()
        ring = Ring(8)
        pool = ring.buffer_ring(1, 64) if ring.supports(abi.Op.SOCKET) else ring.provided_buffers(1, 64)
        memory = weakref.ref(pool._memory)
        file, sqe_flags = reader, 0
        if {table!r} == "made":
            slots = ring.file_table(2)
            slots.update(0, [reader])
            file, sqe_flags = 0, abi.SqeFlag.FIXED_FILE
        ring.sq.prep_read(file, pool.addr, 64, 0, user_data=1, sqe_flags=sqe_flags)
        ring.submit()
        closing.Closing._quiesce = lambda self: False  # as if it could not be cancelled
        def refuse(fd):
            raise AssertionError("this waits for the request")
        register.unregister_files = refuse
        ring.close()
        assert not closing._kept
        del pool
        gc.collect()
        assert memory() is None, "the kernel has let go, and nobody else has it"
        os.write(writer, b"x")
        assert os.read(reader, 1) == b"x", "it went to a closed ring"
        """,
    )


def test_a_kernel_that_waits_for_every_request_before_it_makes_a_table_is_not_watched(run_child: RunChild) -> None:
    run(
        run_child,
        """
        reader, writer = os.pipe()
        ring = Ring(8, mask_features=abi.Feature.RSRC_TAGS)
        pool = ring.provided_buffers(1, 64)
        ring.sq.prep_read(reader, pool.addr, 64, 0, user_data=1)
        ring.submit()
        before = open_fds()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ring.close()
        assert ["memory is kept" in str(warning.message) for warning in caught] == [True], caught
        assert len(closing._kept) == 1 and open_fds() == before - 1
        """,
    )


# --- rings that are not closed


@pytest.mark.parametrize("how", ["refcount", "cycle", "thread"])
def test_a_collected_ring_warns_and_its_memory_outlives_the_kernels_work(run_child: RunChild, how: str) -> None:
    run(
        run_child,
        f"""
        how = {how!r}
        ours, theirs = pair()
        before = open_fds()
        def drop():
            ring = Ring(8)
            seen.append(weakref.ref(buffer := Buffer(SIZE)))
            op = ring.recv(ours, buffer)
            ring.openat("/dev/null")
            ring.buffer_ring(2, 64)
            ring.submit()
            if how == "cycle":
                op.callback = lambda *_: ring
        seen = []
        gc.disable()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if how == "thread":
                thread = threading.Thread(target=drop)
                thread.start()
                thread.join()
                del thread
            else:
                drop()
            gc.collect()
            gc.collect()
        texts = [str(warning.message) for warning in caught if warning.category is ResourceWarning]
        assert any("unclosed ring with" in text for text in texts), texts
        alike = look_alikes()
        theirs.send(b"x" * 64)
        ours.settimeout(HANG_S)
        if how != "thread":
            assert not closing._kept, "the kernel has let go"
            assert seen[0]() is None
            assert ours.recv(64) == b"x" * 64
        assert_untouched(alike)
        deadline = time.monotonic() + HANG_S
        while open_fds() != before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert open_fds() == before
        """,
    )


def test_with_warnings_as_errors_a_collected_ring_is_torn_down_all_the_same(run_child: RunChild) -> None:
    run(
        run_child,
        """
        ours, theirs = pair()
        ignored = []
        sys.unraisablehook = lambda args: ignored.append(args.exc_type)
        before = open_fds()
        ring = Ring(8)
        op = ring.recv(ours, Buffer(SIZE))
        ring.submit()
        del ring, op
        gc.collect()
        assert ignored == [ResourceWarning], ignored
        assert open_fds() == before
        theirs.send(b"x")
        assert ours.recv(1) == b"x"
        """,
    )


@pytest.mark.behaviour("thread-exit")
def test_a_thread_ends_with_requests_in_flight(run_child: RunChild) -> None:
    run(
        run_child,
        """
        ours, theirs = pair()
        made = []
        def work():
            ring = Ring(8)
            made.extend([ring, ring.recv(ours, Buffer(SIZE))])
            ring.submit()
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        ring, op = made
        for use in (ring.submit, op.wait, op.cancel, ring.run):
            try:
                use()
            except WrongThreadError as error:
                assert "thread" in str(error)
            else:
                raise AssertionError(use)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ring.close()
        assert ring.closed and [warning.category for warning in caught] == [ResourceWarning] * len(closing._kept)
        # Without DEFER_TASKRUN the kernel has cancelled everything at the end of the thread.
        assert len(closing._kept) == 1 or not ring.setup_flags & abi.Setup.DEFER_TASKRUN
        made.clear()
        del op
        gc.collect()
        memory = look_alikes()
        theirs.send(b"x" * 64)
        time.sleep(0.1)
        assert_untouched(memory)
        """,
    )


def test_a_live_threads_ring_is_not_closed_by_another(run_child: RunChild) -> None:
    run(
        run_child,
        """
        ring = Ring(8)
        failed = []
        def work():
            try:
                ring.close()
            except WrongThreadError:
                failed.append(True)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert failed and not ring.closed
        assert ring.nop().wait() == 0
        ring.close()
        """,
    )


@pytest.mark.parametrize("raw", [False, True])
def test_the_interpreter_ends_with_requests_in_flight(run_child: RunChild, raw: bool) -> None:
    out = run(
        run_child,
        f"""
        warnings.simplefilter("ignore", ResourceWarning)
        ours, theirs = pair()
        ring = Ring(8)
        pool = ring.buffer_ring(4, 4096)
        op = ring.recv(ours, bytearray(8), callback=lambda *_: ring)
        stream = ring.recv_multishot(theirs, pool)
        fd = ring.openat("/dev/null")
        if {raw}:
            ring.sq.prep_poll_add(ours.fileno(), 1)
        ring.submit()
        ring.accept(socket.create_server(("127.0.0.1", 0)))
        other = Ring(8)
        print("ended")
        """,
    )
    assert out == "ended\n"


@pytest.mark.behaviour("defer-taskrun")
def test_exec_with_requests_in_flight(run_child: RunChild) -> None:
    out = run(
        run_child,
        """
        ours, theirs = pair()
        ring = Ring(8)
        op = ring.recv(ours, bytearray(8))
        ring.submit()
        sys.stdout.flush()
        check = "import os; print([p for p in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + p) " \\
            "and 'io_uring' in os.readlink('/proc/self/fd/' + p)])"
        os.execv(sys.executable, [sys.executable, "-c", check])
        """,
    )
    assert out == "[]\n"


# --- fork


@pytest.mark.pitfall("a fork shares the ring")
def test_after_a_fork_the_ring_is_the_parents(run_child: RunChild) -> None:
    run(
        run_child,
        """
        ours, theirs = pair()
        ring = Ring(8)
        pool = ring.buffer_ring(2, 64)
        files = ring.file_table(2)
        buffer = bytearray(8)
        op = ring.recv(ours, buffer)
        fd = ring.fileno()
        ring.submit()
        queued = ring.nop()
        child = os.fork()
        if child == 0:
            uses = [ring.submit, ring.submit_and_wait, ring.completions, ring.nop, op.wait, op.cancel, ring.run, ring.run_once,
                    ring.fileno, lambda: ring.recv(ours, bytearray(1)), lambda: ring.buffer_ring(1, 1), ring.sq.prep_nop]
            for use in uses:
                try:
                    use()
                except ForkedRingError as error:
                    assert "parent" in str(error) and isinstance(error, RingClosedError)
                else:
                    raise AssertionError(use)
            try:
                files.unregister()
                files[0].close()
            except Exception as error:
                assert "registered" in str(error)
            else:
                raise AssertionError("it acted on a number")
            ring.close()
            try:
                os.fstat(fd)
            except OSError:
                pass
            else:
                raise AssertionError("the ring's fd is still open")
            with open("/proc/self/maps") as maps:
                assert "io_uring" not in maps.read()
            with Ring(8) as own:
                assert own.nop().wait() == 0
            del op, queued, ring
            gc.collect()
            os._exit(0)
        theirs.send(b"hello")
        assert op.wait(HANG_NS) == 5 and buffer[:5] == b"hello"
        assert queued.wait(HANG_NS) == 0
        _, status = os.waitpid(child, 0)
        assert status == 0, status
        assert ring.nop().wait() == 0
        ring.close()
        """,
    )


@pytest.mark.pitfall("a fork shares the ring")
def test_a_forked_child_does_not_keep_the_parents_port(run_child: RunChild, tmp_path: Path) -> None:
    # The parent is gone without a word, and its child lives on: it must hold nothing of the ring.
    hold = tmp_path / "hold"
    os.mkfifo(hold)
    out = run(
        run_child,
        """
        listener = socket.create_server(("127.0.0.1", 0))
        print(listener.getsockname()[1], flush=True)
        ring = Ring(8)
        ring.accept_multishot(listener)
        ring.submit()
        if os.fork() == 0:
            listener.close()
            os.close(1)
            os.close(2)
            signal.alarm(2 * HANG_S)
            open(sys.argv[1]).close()  # until the test opens it too
        os._exit(0)
        """,
        str(hold),
    )
    until_it_works(lambda: socket.create_server(("127.0.0.1", int(out))).close())
    # This fails where nobody reads: the child was there all the time.
    until_it_works(lambda: os.close(os.open(hold, os.O_WRONLY | os.O_NONBLOCK)))


# --- what completions bring


def test_a_late_connection_is_closed_when_nobody_takes_it(run_child: RunChild) -> None:
    run(
        run_child,
        """
        listener = socket.create_server(("127.0.0.1", 0))
        with Ring(8) as ring:
            before = open_fds()
            op = ring.accept(listener)
            ring.submit()
            del op
            client = socket.create_connection(listener.getsockname())
            finish(ring)
            assert_eof(client)
            client.close()
            ring.openat("/dev/null")
            finish(ring)
            op = ring.openat("/dev/null")
            ring.submit_and_wait(1)
            ring.completions()
            assert op.done
            del op
            assert open_fds() == before
            fd = ring.openat("/dev/null").wait()
            other, _ = ring.openat("/dev/null").wait_cqe()
            gc.collect()
            os.close(fd), os.close(other)
        """,
    )


def test_a_connection_that_arrives_during_close_is_closed(run_child: RunChild) -> None:
    run(
        run_child,
        """
        listener = socket.create_server(("127.0.0.1", 0))
        ring = Ring(8)
        before = open_fds()
        ring.accept(listener)
        ring.accept_multishot(listener)
        ring.accept(listener, callback=print)
        ring.submit()
        clients = [socket.create_connection(listener.getsockname()) for _ in range(6)]
        ring.submit_and_wait(3)
        ring.close()
        listener.close()
        for client in clients:
            assert_eof(client)
            client.close()
        assert open_fds() == before - 2
        """,
    )


def test_connections_of_a_dropped_stream_are_closed(run_child: RunChild) -> None:
    run(
        run_child,
        """
        listener = socket.create_server(("127.0.0.1", 0))
        with Ring(8) as ring:
            before = open_fds()
            stream = ring.accept_multishot(listener)
            ring.submit()
            clients = [socket.create_connection(listener.getsockname()) for _ in range(4)]
            res, _ = stream.next(HANG_NS)
            os.close(good(stream, res))
            while len(stream.stream[0]) < 3:
                ring.run_once(HANG_NS)
            stream.cancel()
            del stream
            finish(ring)
            gc.collect()
            for client in clients:
                assert_eof(client)
                client.close()
            assert open_fds() == before
        """,
    )


def test_connections_whose_callbacks_never_ran_are_closed_with_the_ring(run_child: RunChild) -> None:
    run(
        run_child,
        """
        listener = socket.create_server(("127.0.0.1", 0))
        ring = Ring(8)
        taken = []
        def accepted(op, res, cqe_flags):
            taken.append(good(op, res))
            raise KeyError(res)
        before = open_fds()
        ring.accept_multishot(listener, callback=accepted)
        clients = [socket.create_connection(listener.getsockname()) for _ in range(4)]
        try:
            ring.run()
        except KeyError:
            pass
        assert len(taken) == 1
        ring.close()
        os.close(taken[0])
        for client in clients:
            assert_eof(client)
            client.close()
        assert open_fds() == before - 1
        """,
    )


def test_fds_of_a_message_that_nobody_took_are_closed(run_child: RunChild) -> None:
    run(
        run_child,
        """
        ours, theirs = pair()
        with Ring(8) as ring:
            before = open_fds()
            def send():
                with open("/dev/null") as file:
                    socket.send_fds(theirs, [b"x"], [file.fileno()])
            ring.recvmsg(ours, [bytearray(1)], 64)
            ring.submit()
            send()
            finish(ring)
            gc.collect()
            assert open_fds() == before
            send()
            op = ring.recvmsg(ours, [bytearray(1)], 64)
            (fd,) = op.wait().fds
            del op
            os.close(fd)
        """,
    )


def test_a_slot_that_nobody_took_is_emptied(run_child: RunChild) -> None:
    run(
        run_child,
        """
        listener = socket.create_server(("127.0.0.1", 0))
        with Ring(8) as ring:
            files = ring.file_table(2)
            stream = ring.accept_multishot_direct(listener, files)
            clients = [socket.create_connection(listener.getsockname()) for _ in range(2)]
            assert good(stream, stream.next(HANG_NS)[0]) == 0
            while not stream.stream[0]:
                ring.run_once(HANG_NS)
            stream.cancel()
            del stream
            finish(ring)
            files[0].close()
            ring.openat_direct("/dev/null", files)  # and this one
            finish(ring)
            ring.nop().wait()
            for client in clients:
                assert_eof(client)
                client.close()
            assert {ring.openat_direct("/dev/null", files).wait().slot for _ in range(2)} == {0, 1}
        """,
    )


@pytest.mark.pitfall("provided buffers go astray")
def test_buffers_that_nobody_took_go_home(run_child: RunChild) -> None:
    run(
        run_child,
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with Ring(8) as ring:
            pool = ring.buffer_ring(4, 64)
            for lap in range(5):
                stream = ring.recv_multishot(ours, pool)
                for i in range(4):
                    theirs.send(b"x")
                while len(stream.stream[0]) < 4:
                    assert ring.run_once(HANG_NS), "the pool has lost buffers"
                stream.cancel()
                del stream
                finish(ring)
                theirs.send(b"x")
                op = ring.recv_select(ours, pool)
                ring.submit_and_wait(1)
                ring.completions()
                del op
                loan = pool.lend(1, (2 << abi.CQE_BUFFER_SHIFT))  # without a buffer
                del loan
                ring.nop().wait()
            bids = set()
            for _ in range(4):
                theirs.send(b"x")
                bids.update(pool.held(ring.recv_select(ours, pool).wait_cqe()[1]))
            assert bids == {0, 1, 2, 3}
        """,
    )


@pytest.mark.pitfall("a cancelled request may complete all the same")
def test_tokens_are_never_reused(run_child: RunChild) -> None:
    run(
        run_child,
        """
        with Ring(8) as ring:
            tokens = [ring.nop().token for _ in range(2000)]
            finish(ring)
            try:
                ring.read(0, bytearray(8), offset=1 << 70)  # fails when it is encoded
            except Exception:
                pass
            tokens += [ring.nop().token, ring.timeout(1).token]
            assert tokens == sorted(set(tokens)) and min(tokens) >= 1 << 63
            finish(ring)
            assert ring.in_flight == 0
        """,
    )


# --- signals


def test_an_interrupt_during_a_wait_leaves_the_operation_in_flight(run_child: RunChild) -> None:
    run(
        run_child,
        """
        ours, theirs = pair()
        with Ring(8) as ring:
            buffer = bytearray(8)
            op = ring.recv(ours, buffer)
            def interrupt():
                time.sleep(0.2)
                os.kill(os.getpid(), signal.SIGINT)
            thread = threading.Thread(target=interrupt)
            thread.start()
            try:
                op.wait(HANG_NS)
            except KeyboardInterrupt:
                pass
            else:
                raise AssertionError
            thread.join()
            assert not op.done
            theirs.send(b"hello")
            assert op.wait(HANG_NS) == 5 and buffer[:5] == b"hello"
        """,
    )


@pytest.mark.parametrize("ring", ["Ring(8)", "Ring(8, wanted_flags=0)", "Ring(8, mask_features=abi.Feature.EXT_ARG)"])
def test_a_signal_handler_runs_during_a_wait_which_goes_on(run_child: RunChild, ring: str) -> None:
    run(
        run_child,
        f"""
        ours, theirs = pair()
        def handler(number, frame):
            handled.append(number)
            if len(handled) == 3:
                theirs.send(b"now")
        handled = []
        signal.signal(signal.SIGALRM, handler)
        with {ring} as ring:
            op = ring.recv(ours, bytearray(8))
            signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
            assert op.wait(HANG_NS) == 3
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert len(handled) >= 3
        """,
    )
