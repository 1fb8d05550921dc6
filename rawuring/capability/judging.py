"""From the kernel's answers to rows and surprises: what should be here, by the release that brought it.

May import abi and its siblings `asking` and `report`. Never observes anything.

The release explains what was found; it never decides it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from .. import abi
from ..diagnosis.report import version_of
from .asking import Answer
from .report import BACKPORT, LATER, MISSING, OK, UNKNOWN, Behaviour, Row, Surprise

TABLES: Final[Mapping[str, type[abi.Value] | type[abi.Flag]]] = {
    "features": abi.Feature,
    "setup_flags": abi.Setup,
    "opcodes": abi.Op,
    "register_ops": abi.Register,
}

BUILT_BY: Final[Mapping[str, str]] = {
    "EPOLL_CTL": "CONFIG_EPOLL",
    "EPOLL_WAIT": "CONFIG_EPOLL",
    "MADVISE": "CONFIG_ADVISE_SYSCALLS",
    "FADVISE": "CONFIG_ADVISE_SYSCALLS",
    "FUTEX_WAIT": "CONFIG_FUTEX",
    "FUTEX_WAKE": "CONFIG_FUTEX",
    "FUTEX_WAITV": "CONFIG_FUTEX",
    "NAPI": "CONFIG_NET_RX_BUSY_POLL",
    "UNREGISTER_NAPI": "CONFIG_NET_RX_BUSY_POLL",
    "ZCRX_IFQ": "CONFIG_IO_URING_ZCRX",
    "ZCRX_CTRL": "CONFIG_IO_URING_ZCRX",
    "BPF_FILTER": "CONFIG_IO_URING_BPF",
    **dict.fromkeys(
        (
            "SENDMSG", "RECVMSG", "ACCEPT", "CONNECT", "SEND", "RECV", "SHUTDOWN", "SOCKET", "SEND_ZC", "SENDMSG_ZC",
            "BIND", "LISTEN", "RECV_ZC",
        ),
        "CONFIG_NET",
    ),
}  # fmt: skip


def state_of(present: bool | None, since: str, release: str) -> str:
    if present is None:
        return UNKNOWN
    is_due = _version(release) >= _version(since)
    if present:
        return OK if is_due else BACKPORT
    return MISSING if is_due else LATER


def _version(release: str) -> tuple[int, int]:
    """That of a release of a kind of its own is later than any, so that nothing in it is a backport."""
    return version_of(release) or (1 << 30, 0)


def rows(table: str, answer: Answer, release: str) -> tuple[Row, ...]:
    found = []
    for constant in sorted(TABLES[table], key=int):
        present, source = answer.present.get(int(constant), (None, None))
        found.append(
            Row(
                name=str(constant.name),
                kernel_name=constant.kernel_name,
                value=int(constant),
                since=constant.since,
                present=present,
                state=state_of(present, constant.since, release),
                source=source,
                man=constant.man or None,
            )
        )
    return tuple(found)


def surprises(
    sections: Mapping[str, Iterable[Row | Behaviour]], beyond: Mapping[str, int | None], release: str
) -> tuple[Surprise, ...]:
    found = []
    for section, listed in sections.items():
        for row in listed:
            if row.state in (MISSING, BACKPORT):
                found.append(Surprise(section, row.name, row.state, _explain(row, release)))
        count = beyond.get(section)
        if count:
            found.append(Surprise(section, f"{count} more", UNKNOWN, _explain_beyond(count)))
    return tuple(found)


def _explain(row: Row | Behaviour, release: str) -> str:
    if row.state == BACKPORT:
        if _version(release) == (5, 10) and _version(row.since) <= (5, 15):
            whose = "and from 5.10.162 on the 5.10 series has most of what io_uring was in Linux 5.15"
        else:
            whose = f"and this kernel ({release}) carries newer code"
        return f"Linux {row.since} brought it, {whose}."
    text = f"Linux {row.since} brought it, and this kernel ({release}) does not have it"
    option = BUILT_BY.get(row.name)
    if isinstance(row, Behaviour):
        return f"{text}: {row.detail}."
    if option is not None:
        return f"{text}: it was probably built without {option}."
    return f"{text}: it was built without it, or a restriction forbids it."


def _explain_beyond(count: int) -> str:
    what = "one that this table does not" if count == 1 else f"{count} that this table does not"
    return f"The kernel knows {what}: it is newer than this version of rawuring."
