"""The part on what is no request: rings, their queues, operations, buffers, files, results, exceptions.

Imports its neighbours. What is told comes from docstrings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from . import operations, sources
from .markdown import code, link, paragraph, program, table, text
from .sources import Class, Function, SourceError

TITLE = "Rings and results"

_RING = "rawuring/ring"
_LABELS = ("Since", "Man", "Memory", "Limit")
_MIXIN = re.compile(r"\w+(Operations|Commands)")

# What the ring calls on its operations, and they on it.
INTERNAL = frozenset({
    "add", "all_consumed", "begin", "begin_send", "check", "check_receives", "claim", "discard",
    "discard_last", "drop", "drop_first", "ends_linked", "follow", "has_room", "held", "holds", "last_opcode",
    "last_user_data", "locate", "locates", "look", "move", "needs_wakeup", "note_first", "owes", "place", "reclaim", "register", "release", "repeat",
    "settle", "unclaim", "unlink_last", "wait_end", "wait_for", "wait_next", "withdraw",
    "BufferRing.unregister", "CompletionQueue.close", "SubmissionQueue.close",
})  # fmt: skip

RING_METHODS = {
    "Submitting and waiting": (
        "submit", "submit_and_wait", "completions", "run_once", "run", "stop", "in_flight", "set_iowait", "register_clock",
    ),
    "Chains, and cancelling at once": ("link", "sync_cancel"),
    "Memory and files of a ring": (
        "register_buffers", "buffer_ring", "send_buffers", "provided_buffers", "close_buffer_ring", "file_table",
    ),
    "What the kernel has": ("supports", "require", "lacks"),
    "Thread, fd and end of a ring": (
        "enable", "fileno", "register_eventfd", "unregister_eventfd", "resize", "entries", "closed", "close",
    ),
}  # fmt: skip


class Room(NamedTuple):
    """Classes that are told under one heading: of each its module, and what an object of it is called."""

    title: str
    classes: dict[str, tuple[str, str]]


INFLIGHT = "rawuring/inflight.py"
BUFFERS = "rawuring/buffers.py"
ROOMS = (
    Room("Operation", {
        "Operation": (INFLIGHT, "operation"),
        "ZeroCopyOperation": (INFLIGHT, "operation"),
    }),
    Room("Stream", {
        "Stream": (INFLIGHT, "stream"),
        "FdStream": (INFLIGHT, "stream"),
        "FixedStream": ("rawuring/operations/base.py", "stream"),
        "BufferStream": (INFLIGHT, "stream"),
        "SendStream": (INFLIGHT, "stream"),
        "MessageStream": ("rawuring/operations/messages.py", "stream"),
        "TimestampStream": ("rawuring/operations/socket_commands.py", "stream"),
    }),
    Room("Buffers", {
        "BufferGroup": (BUFFERS, "pool"),
        "BufferRing": (BUFFERS, "pool"),
        "IncrementalRing": (BUFFERS, "pool"),
        "OutgoingRing": (BUFFERS, "pool"),
        "ProvidedBuffers": (BUFFERS, "pool"),
        "RegisteredBuffers": (BUFFERS, "buffers"),
    }),
    Room("Files", {
        "FileTable": ("rawuring/files.py", "table"),
        "Fixed": ("rawuring/files.py", "fixed"),
    }),
    Room("Results", {
        "Message": ("rawuring/operations/received.py", "message"),
        "LentMessage": ("rawuring/operations/messages.py", "message"),
        "StatResult": ("rawuring/system/results.py", "result"),
        "EpollEvent": ("rawuring/system/results.py", "event"),
        "TxTimestamp": ("rawuring/system/results.py", "stamp"),
    }),
    Room("Queues", {
        "SubmissionQueue": ("rawuring/sq.py", "ring.sq"),
        "SqeBlock": ("rawuring/sqe_block.py", "block"),
        "CompletionQueue": ("rawuring/cq.py", "ring.cq"),
        "CqeBlock": ("rawuring/cqe_block.py", "block"),
    }),
)  # fmt: skip


# The operations that differ in their result alone: of each its module.
KINDS = {
    "FdOperation": INFLIGHT,
    "FixedOperation": "rawuring/operations/base.py",
    "BufferOperation": INFLIGHT,
    "MessageOperation": "rawuring/operations/messages.py",
    "StatOperation": "rawuring/operations/paths.py",
    "AttributeOperation": "rawuring/operations/paths.py",
    "PipeOperation": "rawuring/operations/descriptors.py",
    "FixedPipeOperation": "rawuring/operations/descriptors.py",
    "SlotsOperation": "rawuring/operations/descriptors.py",
    "OptionOperation": "rawuring/operations/socket_commands.py",
    "NameOperation": "rawuring/operations/socket_commands.py",
    "EventsOperation": "rawuring/operations/events.py",
    "ChildOperation": "rawuring/operations/events.py",
}

# A class that is told by its own base alone.
_ABOVE = {"LargeStream": "Stream"}


@cache
def ring_methods() -> dict[str, Function]:
    """The public methods and properties of `Ring` that queue nothing."""
    queueing = {method.name for methods in operations.methods().values() for method in methods}
    theirs = [function for function in sources.functions("rawuring/operations") if _MIXIN.fullmatch(function.owner)]
    ours = [function for function in sources.functions(_RING) if function.path.stem != "terms"]
    return {
        function.name: function
        for function in [*theirs, *ours]
        if function.owner != function.path.stem
        and not function.name.startswith("_")
        and function.name not in INTERNAL | queueing
    }


def _class(name: str, module: str) -> Class:
    try:
        return sources.classes(module)[name]
    except KeyError:
        raise SourceError(f"{module} has no class {name}, which the reference tells of") from None


def _call(function: Function, receiver: str) -> list[str]:
    """A method or property."""
    call = f"{receiver}.{function.name}" if function.is_property else function.call(receiver)
    note = "" if function.returns in ("", "None") else f"→ {code(function.returns)}"
    return operations.function_lines(function, call, note, _LABELS)


def _told(found: Class) -> Iterator[str]:
    """A class's docstring."""
    for part in found.doc.paragraphs:
        yield from ("", *paragraph(part))
    if found.doc.example:
        yield from ("", *program(found.doc.example))
    labels = [f"* {label}: {text(found.doc.labels[label])}" for label in _LABELS if label in found.doc.labels]
    if labels:
        yield from ("", *labels)


def _attributes(found: Class, receiver: str) -> Iterator[str]:
    """Those of a named tuple, and of others what has a text."""
    is_tuple = "NamedTuple" in found.bases
    shown = [
        (name, says)
        for name, says in found.attributes
        if not name.startswith("_") and (says or is_tuple) and name not in INTERNAL
    ]
    if shown:
        yield from ("", "It has", "")
    for name, says in shown:
        yield f"* {code(f'{receiver}.{name}')} {text(' '.join(says.split()))}".rstrip()


def _room(room: Room) -> Iterator[str]:
    for name, (module, receiver) in room.classes.items():
        found = _class(name, module)
        bases = [_ABOVE.get(base, base) for base in (each.partition("[")[0] for each in found.bases)]
        told = [link(base, base) for base in bases if any(base in other.classes for other in ROOMS)]
        yield f"### {name}"
        if told:
            yield from ("", f"What {told[0]} is, and:")
        yield from (*_told(found), *_attributes(found, receiver))
        for function in sources.functions(module):
            if function.owner == name and function.doc.paragraphs and _is_public(function):
                yield from ("", *_call(function, receiver))
        yield ""


def _is_public(function: Function) -> bool:
    names = {function.name, f"{function.owner}.{function.name}"}
    return not function.name.startswith("_") and not names & INTERNAL


def _kinds() -> Iterator[str]:
    rows = []
    for name, module in KINDS.items():
        found = _class(name, module)
        _, _, value = found.bases[0].removesuffix("]").partition("[")
        rows.append((code(name), code(value.strip("'\"") or "list[Fixed]"), _in_a_cell(found)))
    yield from ("### Kinds of operations", "", *table(("operation", "`wait()` returns", "what it is"), rows), "")


def _ring() -> Iterator[str]:
    every = {function.name: function for function in sources.functions("rawuring/ring/__init__.py")}
    made = every["__init__"].call("Ring").replace("Ring.__init__", "Ring")
    yield from ("### Ring", "", f"**{code(made)}**", *_told(_class("Ring", "rawuring/ring/__init__.py")))
    yield from _attributes(_class("Entering", "rawuring/ring/entering.py"), "ring")
    yield ""
    for title, names in RING_METHODS.items():
        yield f"### {title}"
        for name in names:
            yield from ("", *_call(ring_methods()[name], "ring"))
        yield ""


def _exceptions() -> Iterator[str]:
    told = sources.module_doc("rawuring/errors.py")
    yield "### Exceptions"
    for part in told.paragraphs[2:]:
        if part[0].startswith("* "):
            yield from ("", *_bullets(part))
        else:
            yield from ("", *paragraph(part))
    yield from ("", *program(told.example), "")
    rows = [
        (code(each.name), ", ".join(map(code, each.bases)), _in_a_cell(each))
        for each in sources.classes("rawuring/errors.py").values()
    ]
    yield from (*table(("exception", "is a", "says that"), rows), "")


def _in_a_cell(found: Class) -> str:
    return text(" ".join(line for part in found.doc.paragraphs for line in part))


def _bullets(lines: tuple[str, ...]) -> Iterator[str]:
    for item in " ".join(line.strip() for line in lines).split("* ")[1:]:
        yield f"* {text(item.strip())}"


def lines() -> list[str]:
    """The whole part."""
    shown = [
        f"## {TITLE}",
        "",
        f"What there is besides {link('requests', operations.TITLE)}: a `Ring`, what its methods return, and what they "
        "raise. Each example runs as it stands.",
        "",
        "In signatures a `Cqe` is (user_data, res, cqe_flags) and an `Outcome` (res, cqe_flags); a `Buffer` is any object "
        "with the buffer protocol, a `FileLike` an fd number, an object with `fileno()`, or a `Fixed`.",
        "",
        *_ring(),
    ]
    for room in ROOMS:
        shown += _room(room)
        if room.title == "Operation":
            shown += _kinds()
    return [*shown, *_exceptions()]
