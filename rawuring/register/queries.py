"""What the kernel knows, by REGISTER_QUERY: no ring is needed, and one call asks everything.

May import abi, errors, syscalls.
"""

from __future__ import annotations

import errno
from typing import Any, Final, NamedTuple

from .. import abi
from ..errors import os_error
from .calling import address, call

__all__ = ["Answers", "Query", "QueryScq", "QueryZcrx", "QueryZcrxEvent", "queries", "query"]


class Query(NamedTuple):
    """The kernel's counts, and masks of every bit it knows."""

    nr_request_opcodes: int
    nr_register_opcodes: int
    feature_flags: int
    ring_setup_flags: int
    enter_flags: int
    sqe_flags: int
    nr_query_opcodes: int


class QueryZcrx(NamedTuple):
    """Zero-copy receive: masks of the flags, and what a refill queue needs."""

    register_flags: int
    area_flags: int
    nr_ctrl_opcodes: int
    features: int
    rq_hdr_size: int
    rq_hdr_alignment: int


class QueryScq(NamedTuple):
    """The header in front of the queues, for Setup.NO_MMAP: its size, and its alignment."""

    hdr_size: int
    hdr_alignment: int


class QueryZcrxEvent(NamedTuple):
    """Events of zero-copy receive: a mask of them, and what their statistics need."""

    event_flags: int
    stats_size: int
    stats_off_alignment: int


class Answers(NamedTuple):
    """What each query found; None where the kernel is older than the query."""

    opcodes: Query | None
    zcrx: QueryZcrx | None
    scq: QueryScq | None
    zcrx_event: QueryZcrxEvent | None


_HEADER: Final = abi.IO_URING_QUERY_HDR
_KINDS: Final[tuple[tuple[abi.Query, abi.Layout, Any], ...]] = (
    (abi.Query.OPCODES, abi.IO_URING_QUERY_OPCODE, Query),
    (abi.Query.ZCRX, abi.IO_URING_QUERY_ZCRX, QueryZcrx),
    (abi.Query.SCQ, abi.IO_URING_QUERY_SCQ, QueryScq),
    (abi.Query.ZCRX_EVENT, abi.IO_URING_QUERY_ZCRX_EVENT, QueryZcrxEvent),
)
_UNKNOWN: Final = (-errno.EOPNOTSUPP, -errno.EINVAL)


def query(fd: int = -1) -> Query:
    """Ask the kernel for its masks; with `fd` -1 no ring is needed.

    Since      Linux 6.18           Man   io_uring_register_query(3)
    Errors     EINVAL the kernel is older
    """
    answer = queries(fd).opcodes
    assert answer is not None  # every kernel that knows the verb knows this query
    return answer


def queries(fd: int = -1) -> Answers:
    """Ask every query there is, in one chain and one call.

    Since      Linux 6.18 (ZCRX and SCQ 6.19, ZCRX_EVENT 7.2)       Man   io_uring_register_query(3)
    Errors     EINVAL the kernel is older
    """
    data = [bytearray(layout.nbytes) for _, layout, _ in _KINDS]
    headers: list[bytearray] = []
    next_entry = 0
    for (op, layout, _), memory in zip(reversed(_KINDS), reversed(data)):
        header = _HEADER.pack(next_entry=next_entry, query_data=address(memory), query_op=int(op), size=layout.nbytes)
        headers.insert(0, header)
        next_entry = address(header)
    call(fd, abi.Register.QUERY, headers[0])
    found: list[Any] = []
    for (_, layout, answer), header, memory in zip(_KINDS, headers, data):
        result = _HEADER.get(header, "result")
        if result < 0 and result not in _UNKNOWN:
            raise os_error(-result, "io_uring_register: a query")
        values = layout.unpack(memory)
        found.append(answer(*(values[name] for name in answer._fields)) if result >= 0 else None)
    return Answers(*found)
