"""Who a request acts as, and what a ring or a task may ask for: personalities, restrictions, BPF filters.

May import abi, errors, syscalls. Nothing here can be taken back, personalities excepted.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence

from .. import abi
from ..errors import os_error
from .calling import address, call

__all__ = [
    "bpf_filter", "bpf_filter_task", "personality", "restrictions", "restrictions_task", "unregister_personality",
]  # fmt: skip


def personality(fd: int) -> int:
    """Register the credentials the thread has now: returns the id for `sqe.personality`, which is never 0.

    Requests with it act as who the thread was then: keep it from whom it is not meant for.

    Since      Linux 5.6            Man   io_uring_register_personality(3)
    Memory     registered: the credentials, until `unregister_personality` or the end of the ring
    """
    return call(fd, abi.Register.PERSONALITY)


def unregister_personality(fd: int, personality_id: int) -> None:
    """Drop a personality. Requests in flight keep theirs.

    Since      Linux 5.6            Man   io_uring_unregister_personality(3)
    Errors     EINVAL no such id
    """
    call(fd, abi.Register.UNREGISTER_PERSONALITY, None, personality_id)


def restrictions(
    fd: int,
    ops: Iterable[int] = (),
    register_ops: Iterable[int] = (),
    sqe_flags_allowed: int = 0,
    sqe_flags_required: int = 0,
) -> None:
    """Allow a ring these operations, register verbs and SqeFlag bits alone, from `enable_rings` on.

    The ring is made with Setup.R_DISABLED, and restricted once. What is not allowed is refused with
    EACCES: an operation in its CQE, a verb by its call. `enable_rings` is always allowed, and
    required flags need not be allowed as well.

    Since      Linux 5.10           Man   io_uring_register_restrictions(3)
    Errors     EBADFD it is enabled already; EBUSY it is restricted already; EINVAL the kernel does not know one
    """
    arg, count = _restriction_array(ops, register_ops, sqe_flags_allowed, sqe_flags_required)
    call(fd, abi.Register.RESTRICTIONS, arg, count)


def restrictions_task(
    ops: Iterable[int] = (),
    register_ops: Iterable[int] = (),
    sqe_flags_allowed: int = 0,
    sqe_flags_required: int = 0,
) -> None:
    """As `restrictions`, for every ring that the calling thread and its children make from now on.

    A thread without CAP_SYS_ADMIN first sets no_new_privs (prctl(2)). There is no way back.

    Since      Linux 7.0            Man   io_uring_register_restrictions(3)
    Errors     EACCES no_new_privs is not set; EPERM there are some already; EINVAL the kernel is older
    """
    entries, count = _restriction_array(ops, register_ops, sqe_flags_allowed, sqe_flags_required)
    arg = abi.IO_URING_TASK_RESTRICTION.pack(nr_res=count)
    call(-1, abi.Register.RESTRICTIONS, arg + entries, 1)


def _restriction_array(
    ops: Iterable[int], register_ops: Iterable[int], sqe_flags_allowed: int, sqe_flags_required: int
) -> tuple[bytearray, int]:
    layout, kind = abi.IO_URING_RESTRICTION, abi.Restriction
    verbs = [abi.Register.ENABLE_RINGS, *register_ops]
    # From Linux 7.0 on, requests are restricted only if an entry is about requests, and verbs only if
    # one is about verbs. So that what is not named is refused everywhere, there always is one of each.
    entries = [
        layout.pack(opcode=int(kind.SQE_FLAGS_ALLOWED), sqe_flags=int(sqe_flags_allowed)),
        layout.pack(opcode=int(kind.SQE_FLAGS_REQUIRED), sqe_flags=int(sqe_flags_required)),
        *(layout.pack(opcode=int(kind.SQE_OP), sqe_op=op) for op in ops),
        *(layout.pack(opcode=int(kind.REGISTER_OP), register_op=op) for op in verbs),
    ]
    return bytearray(b"".join(entries)), len(entries)


# An instruction of a classic BPF program: code, jt, jf, k.
Instruction = tuple[int, int, int, int]


def bpf_filter(
    fd: int, op: int, program: Sequence[Instruction], *, pdu_nbytes: int = 0, filter_flags: int = 0
) -> None:
    """Let a classic BPF program decide each request of operation `op` on a ring: 0 refuses it with EACCES.

    It is made of (code, jt, jf, k), and loads 32-bit words of struct io_uring_bpf_ctx, of which
    `pdu_nbytes` bytes from offset 16 on depend on the operation (12 for SOCKET, 24 for OPENAT).
    Several programs for an operation must all allow it. With BpfFilter.DENY_REST every operation
    without one is refused. A thread without CAP_SYS_ADMIN first sets no_new_privs (prctl(2)).

    Since      Linux 7.0            Man   io_uring_register_bpf_filter(3)
    Errors     EMSGSIZE not the kernel's `pdu_nbytes`, which the text tells; EACCES no_new_privs is not
               set; EINVAL a program that is not allowed, or the kernel is older or without CONFIG_IO_URING_BPF
    """
    instruction, layout = abi.SOCK_FILTER, abi.IO_URING_BPF
    code = bytearray(b"".join(instruction.pack(code=c, jt=jt, jf=jf, k=k) for c, jt, jf, k in program))
    arg = layout.pack(cmd_type=int(abi.BpfCommand.FILTER))
    for field, value in (
        ("opcode", op), ("flags", filter_flags), ("filter_len", len(program)), ("pdu_size", pdu_nbytes),
        ("filter_ptr", address(code)),
    ):  # fmt: skip
        layout.put(arg, f"filter.{field}", value)
    try:
        call(fd, abi.Register.BPF_FILTER, arg, 1)
    except OSError as error:
        if error.errno != errno.EMSGSIZE:
            raise
        expected = layout.get(arg, "filter.pdu_size")
        raise os_error(errno.EMSGSIZE, f"io_uring_register: pdu_nbytes is {expected} for this operation") from None


def bpf_filter_task(op: int, program: Sequence[Instruction], *, pdu_nbytes: int = 0, filter_flags: int = 0) -> None:
    """As `bpf_filter`, for every ring that the calling thread and its children make from now on.

    Since      Linux 7.0            Man   io_uring_register_bpf_filter_task(3)
    Errors     as `bpf_filter`
    """
    bpf_filter(-1, op, program, pdu_nbytes=pdu_nbytes, filter_flags=filter_flags)
