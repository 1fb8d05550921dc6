"""What liburing's own tests check, and what io_uring lets a program do wrong: which of our tests show it here.

A test says so itself: `@pytest.mark.behaviour("cq-overflow")` names the test of liburing, and
`@pytest.mark.pitfall("a wait may end early")` the pitfall. Both may name several. This module has the
names, and reads the sources for who has them. It imports nothing of rawuring, and runs nothing.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TESTS = Path(__file__).resolve().parent

BEHAVIOURS = {
    # Set-up
    "io_uring_setup": "entries, flags, reserved words and pointers that make no sense are refused, each with its errno",
    "cq-size": "what CQSIZE and CLAMP make of the sizes that are asked for",
    "init-mem": "a ring in the caller's memory stays inside what it said that it needs",
    "no-mmap-inval": "a ring in memory that is not there fails cleanly",
    "reg-fd-only": "a ring works without any fd",
    "resize-rings": "queues grow and shrink with entries in them and requests in flight, within limits",
    "resize-mmap-fail": "a resize whose queues cannot be mapped leaves the ring as it was",
    "ring-query": "queries: chains, sizes, unknown ones, circles",
    "probe": "what the kernel lists is what it does",
    "single-issuer": "who made the ring, or enabled it, alone may submit",
    # Submitting and taking completions
    "io_uring_enter": "bad fds, flags and indices; what is dropped is counted",
    "io_uring_register": "bad arguments, the limits of buffers, memory that is locked or of a file",
    "drop-submit": "a bad request ends the batch, or with SUBMIT_ALL does not",
    "submit-and-wait": "a wait with a timeout counts what was submitted, and waits once",
    "submit-reuse": "what a request points to may be overwritten when it is submitted",
    "submit-link-fail": "a bad request at any place of a chain ends that chain alone",
    "sq-full": "a full queue takes nothing, and again after a submit",
    "sq-space_left": "how much room there is, through the wrap",
    "cq-full": "completions that find no room are kept",
    "cq-overflow": "which enter posts what was kept, in which order, and when it has ended",
    "cq-peek-batch": "looking at completions brings what is there, in order, and leaves it",
    "cq-peek-batch-mixed": "the same with completions of two sizes and fillers",
    "cq-ready": "how many there are: those posted less those taken",
    "nop-all-sizes": "rings of every size fill and wrap",
    "nop": "results and user_data on every kind of ring",
    "nop-flags": "what a NOP can be asked to do: results, files, buffers, task work",
    "nop32": "the second half of a completion of 32 bytes",
    "sqe-mixed-nop": "requests of 64 and 128 bytes on one ring",
    "defer-taskrun": "completions come inside an enter of the owner; eventfds, exec, the owner's end",
    "timeout-new": "waits of several threads, each with its timeout",
    "min-timeout": "after the minimum wait what is there is enough",
    "wait-timeout": "waits that end at a time of a clock",
    "reg-wait": "waits registered in a region: offsets, sizes, what is refused",
    # SQ threads
    "sqpoll-sleep": "the thread sleeps when it is idle, says so, and is woken",
    "sqwait": "an enter waits until the thread made room",
    "sq-poll-share": "rings that share one thread",
    # Chains
    "link": "chains run in order and break; hard ones do not",
    "link_drain": "a drained request waits for all before it, also where there are chains",
    "skip-cqe": "which completions are silent, at every place of a chain",
    # Time and cancelling
    "timeout": "timeouts: counts, points in time, clocks, updates, removals, repeats, chains",
    "link-timeout": "timeouts of another request: firing or not, misplaced, updated, in chains",
    "io-cancel": "cancelling what waits, what runs, what has ended, and nobody else's",
    "cancel-fd-userdata": "cancelling by file and user_data together",
    "sync-cancel": "cancelling without a request",
    "poll": "one event; cancelled; of a pipe that a child writes to",
    "poll-mshot-update": "updates of a poll that goes on",
    "poll-mshot-overflow": "a poll that goes on, and a completion queue that is full",
    # Files
    "read-write": "reads and writes of every form, buffered and direct, of files and slots",
    "file-verify": "what is read is what is there, whatever the page cache holds",
    "fpos": "reads and writes at the file's position move it",
    "short-read": "a read past the end is short",
    "open-close": "opening and closing, fds and slots",
    "openat2": "how a name may be resolved, slots, errors",
    "statx": "of a path and of an fd, as stat(2) says",
    "splice": "splice and tee: offsets, slots, what does not go",
    "rename": "renaming, and where there is no such directory",
    "unlink": "removing files and directories, and where there is no such directory",
    "mkdir": "making directories, and where there is no such directory",
    "symlink": "symbolic links, and where there is no such directory",
    "hardlink": "links, and where there is no such directory",
    "xattr": "extended attributes of a path and of an open file",
    # Tables
    "file-register": "file tables: sparse, updated, skipped over, refused in part, allocated from",
    "rsrc_tags": "tags of files and buffers, and when they are posted",
    "open-direct-pick": "slots that the kernel picks, until there are none",
    "fd-install": "an fd of a slot, with and without close-on-exec",
    "regbuf-clone": "buffers cloned from ring to ring",
    "vec-regbuf": "parts of a registered buffer, for files and sockets",
    # Provided buffers
    "buf-ring": "buffer rings: what is refused, the kernel's memory, many groups, none left",
    "ringbuf-status": "how many buffers are used up",
    "read-inc-file": "buffers used up bit by bit, by reads of a file",
    "recvsend_bundle": "several buffers at once, sent and received",
    "read-mshot": "reads that repeat, until no buffer is left or the end is reached",
    "recv-multishot": "receives that repeat: streams, datagrams, what is refused, no buffer left",
    # Sockets
    "accept": "one and many, into slots, cancelled, on sockets that do not block, with a full completion queue",
    "accept-non-empty": "an accept tells that more connections wait",
    "connect": "accepted, refused, and never answered",
    "bind-listen": "the whole life of a server socket in slots",
    "socket": "sockets and slots, and what is no socket",
    "socket-nb": "who waits where O_NONBLOCK or MSG_DONTWAIT is set",
    "send_recv": "data through send and recv, into provided buffers too",
    "send_recvmsg": "data through sendmsg and recvmsg, into provided buffers too",
    "send-zerocopy": "both completions, registered buffers, the report of copies, failures",
    # Events and messages
    "eventfd-disable": "the bit that keeps an eventfd silent",
    "msg-ring": "messages to every kind of ring, to itself, and to what is none",
    "msg-ring-fd": "files that go from table to table",
    "msg-ring-flags": "completion flags that are passed on",
    "futex": "waiting, waking, several words, cancelling, timeouts",
    "waitid": "children in every state, two waits for one, cancelling",
    "epwait": "events of an epoll, and cancelling the wait",
    # Rights, threads, processes
    "personality": "requests that act as somebody else",
    "register-restrictions": "what a ring may not do",
    "reg-reg-ring": "registering through an index, also when the fd is closed",
    "across-fork": "a ring that was there before a fork",
    "thread-exit": "requests of a thread that ended",
}
"""The tests of liburing that are worth having here, and what they show."""

PITFALLS = {
    "a bad index in the SQ array is dropped in silence": "the array is written once; without one nothing is",
    "overflow keeps completions": "they come with the next enter that looks for them, and none is lost",
    "a wait may end early": "timeouts, signals and a small queue end it: the ring looks again",
    "the last registered wait is misread": "its entry is never used",
    "DEFER_TASKRUN hides completions": "until the owner enters for them, which the queue tells",
    "a SINGLE_ISSUER ring belongs to one thread": "another is told whose it is",
    "a registered index belongs to one thread": "it is dropped with the ring, and with its thread",
    "memory is the kernel's until it says so": "what an operation needs lives as long as it is needed",
    "a timeout is two numbers and a place": "any duration is encoded right, and what is timed is what was meant",
    "a cancelled request may complete all the same": "its own completion decides, and a token is never another's",
    "a zero-copy send completes twice": "the data is held until the second, if there is one",
    "a multishot request ends by itself": "it says so, and is repeated under a token of its own",
    "provided buffers go astray": "each completion's buffer is lent once and comes home, of errors too",
    "a resize loses what the queues were": "features, sizes, head and tail are those of the ring",
    "a fork shares the ring": "the child's copy is closed, and refuses",
    "stale fields of a request have a meaning": "every byte is written for every request",
}
"""What io_uring lets a program do wrong, and what the library does about it."""


def marks() -> Iterator[tuple[str, str, str]]:
    """What the sources say: the marker, a name in it, and the test as pytest calls it."""
    for path in sorted(TESTS.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
                continue
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call):
                    called = ast.unparse(decorator.func)
                    if called in ("pytest.mark.behaviour", "pytest.mark.pitfall"):
                        for argument in decorator.args:
                            yield called.rpartition(".")[2], ast.literal_eval(argument), f"{path.name}::{node.name}"


@pytest.mark.parametrize(("marker", "names"), [("behaviour", BEHAVIOURS), ("pitfall", PITFALLS)])
def test_each_is_shown_by_a_test(marker: str, names: dict[str, str]) -> None:
    shown = defaultdict(list)
    for found, name, test in marks():
        if found == marker:
            shown[name].append(test)
    for name, what in names.items():
        print(f"{name}: {what}")
        for test in shown[name]:
            print(f"    {test}")
    assert set(shown) == set(names)
    assert [name for name in names if not shown[name]] == []
