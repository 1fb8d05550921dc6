"""Who requests act as, and what rings and tasks are allowed: personalities, restrictions, BPF filters."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import RunChild
from registering import refused
from support import Pipe, address, needs, pipe, ring, room, take_one

from rawuring import Ring, abi, register, syscalls

Op, Register, Setup, SqeFlag = abi.Op, abi.Register, abi.Setup, abi.SqeFlag
NOBODY = 65534

__all__ = ["pipe", "ring"]


# --- personalities


@pytest.mark.behaviour("personality")
def test_personalities_come_and_go(ring: Ring) -> None:
    fd = ring.fileno()
    first, second = register.personality(fd), register.personality(fd)
    assert first > 0 and second > 0 and first != second

    def read_as(personality: int) -> int:
        memory = room(8)
        with open("/dev/zero", "rb") as file:
            ring.sq.prep_read(file.fileno(), address(memory), 8, 0, user_data=1, personality=personality)
            return take_one(ring, 1)[0]

    assert read_as(first) == read_as(second) == 8
    register.unregister_personality(fd, first)
    assert read_as(first) == -errno.EINVAL
    assert read_as(second) == 8
    with refused(errno.EINVAL):
        register.unregister_personality(fd, first)


@pytest.mark.behaviour("personality")
@pytest.mark.parametrize("ring", ["best", "plain"], indirect=True)
def test_a_request_acts_as_its_personality(ring: Ring, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    path = tmp_path / "private"
    path.write_text("of root")
    path.chmod(0o600)
    name = bytearray(bytes(path) + b"\0")

    def opened(personality: int) -> int:
        ring.sq.prep_openat(-1, address(name), os.O_RDONLY, 0, user_data=1, personality=personality)
        res = take_one(ring, 1)[0]
        if res < 0:
            return res
        os.close(res)
        return 0

    root = register.personality(ring.fileno())
    os.seteuid(NOBODY)
    try:
        nobody = register.personality(ring.fileno())
        assert opened(0) == -errno.EACCES
        assert opened(root) == 0
    finally:
        os.seteuid(0)
    assert opened(0) == 0
    assert opened(nobody) == -errno.EACCES


# --- restrictions of a ring


@pytest.fixture
def disabled() -> Iterator[Ring]:
    with Ring(8, Setup.R_DISABLED) as made:
        yield made


@pytest.mark.behaviour("register-restrictions")
def test_a_restricted_ring_refuses_the_rest(disabled: Ring, pipe: Pipe) -> None:
    ring, fd = disabled, disabled.fileno()
    register.restrictions(
        fd,
        [Op.NOP, Op.WRITE],
        [Register.PERSONALITY],
        sqe_flags_allowed=SqeFlag.IO_LINK,
        sqe_flags_required=SqeFlag.ASYNC,
    )
    with refused(errno.EBUSY):
        register.restrictions(fd, [Op.READ])
    register.probe(fd)  # nothing is refused yet
    ring.enable()

    def nop(sqe_flags: int) -> int:
        ring.sq.prep_nop(user_data=1, sqe_flags=sqe_flags)
        return take_one(ring, 1)[0]

    assert nop(SqeFlag.ASYNC) == 0
    assert nop(0) == -errno.EACCES
    assert nop(SqeFlag.ASYNC | SqeFlag.IO_DRAIN) == -errno.EACCES
    out, back = bytearray(b"x"), room(1)
    both = int(SqeFlag.ASYNC | SqeFlag.IO_LINK)
    ring.sq.prep_write(pipe[1], address(out), 1, 0, user_data=2, sqe_flags=both)
    assert take_one(ring, 2)[0] == 1
    ring.sq.prep_read(pipe[0], address(back), 1, 0, user_data=3, sqe_flags=both)
    assert take_one(ring, 3)[0] == -errno.EACCES
    assert os.read(pipe[0], 2) == b"x"
    assert register.personality(fd) > 0
    for forbidden in (register.probe, register.unregister_files):
        with refused(errno.EACCES):
            forbidden(fd)
    with refused(errno.EBADFD):
        register.enable_rings(fd)


@pytest.mark.behaviour("register-restrictions")
@pytest.mark.parametrize(("ops", "register_ops"), [([Op.NOP], []), ([], [Register.PROBE])])
def test_what_is_not_named_is_refused(disabled: Ring, ops: list[int], register_ops: list[int]) -> None:
    register.restrictions(disabled.fileno(), ops, register_ops)
    disabled.enable()
    disabled.sq.prep_nop(user_data=1)
    assert take_one(disabled, 1)[0] == (0 if ops else -errno.EACCES)
    try:
        register.probe(disabled.fileno())
        assert register_ops
    except PermissionError:
        assert not register_ops


@pytest.mark.behaviour("register-restrictions")
def test_what_cannot_be_restricted(disabled: Ring) -> None:
    with refused(errno.EINVAL):
        register.restrictions(disabled.fileno(), [255])
    with refused(errno.EINVAL):
        register.restrictions(disabled.fileno(), register_ops=[255])
    register.restrictions(disabled.fileno(), [Op.NOP])
    with Ring(2) as enabled, refused(errno.EBADFD):
        register.restrictions(enabled.fileno(), [Op.NOP])


# --- restrictions of a task, and BPF filters: in a process of their own, for there is no way back

# What the children share.
CHILD = """
import ctypes, errno, os, sys
from rawuring import Ring, abi, register
Op = abi.Op
if ctypes.CDLL(None, use_errno=True).prctl(38, 1, 0, 0, 0):  # PR_SET_NO_NEW_PRIVS
    raise OSError(ctypes.get_errno(), "no_new_privs")
RET, LD_W_ABS, JEQ = 0x06, 0x20, 0x15

def nop(ring):
    ring.sq.prep_nop(user_data=1)
    return res(ring)

def read(ring):
    memory = bytearray(1)
    with open("/dev/zero", "rb") as file:
        ring.sq.prep_read(file.fileno(), ctypes.addressof(ctypes.c_char.from_buffer(memory)), 1, 0, user_data=1)
        return res(ring)

def opened(ring, open_flags):
    name = bytearray(b"/dev/null\\0")
    ring.sq.prep_openat(-1, ctypes.addressof(ctypes.c_char.from_buffer(name)), open_flags, 0, user_data=1)
    fd = res(ring)
    if fd >= 0:
        os.close(fd)
    return min(fd, 0)

def res(ring):
    ring.submit_and_wait(1)
    ((_, found, _),) = ring.completions()
    return found
"""


@pytest.fixture
def filters(ring: Ring) -> None:
    """Skip without BPF filters: a kernel that has them reads the argument, and there is none at this address."""
    try:
        syscalls.register(ring.fileno(), Register.BPF_FILTER, 1, 1)
    except OSError as error:
        needs(f"{Register.BPF_FILTER.since} with CONFIG_IO_URING_BPF", error.errno != errno.EINVAL)


@pytest.fixture
def task_restrictions() -> None:
    """Skip where only rings can be restricted: a kernel that restricts tasks reads the argument or refuses first."""
    try:
        syscalls.register(-1, Register.RESTRICTIONS, 1, 1)
    except OSError as error:
        needs("7.0", error.errno not in (errno.EINVAL, errno.EBADF))


def test_a_restricted_task_makes_restricted_rings(task_restrictions: None, run_child: RunChild) -> None:
    run_child(
        CHILD
        + """
with Ring(4) as before:
    register.restrictions_task([Op.NOP])
    with Ring(4) as ring:
        assert (nop(ring), read(ring)) == (0, -errno.EACCES)
    assert read(before) == 1
    if os.fork() == 0:
        with Ring(4) as ring:
            os._exit(nop(ring) == 0 and read(ring) == -errno.EACCES)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 1
    try:
        register.restrictions_task([Op.NOP, Op.READ])
    except PermissionError:
        pass
    else:
        raise AssertionError("restricted twice")
"""
    )


@pytest.mark.parametrize("ring", ["plain"], indirect=True)
def test_a_filter_decides_by_what_is_asked(filters: None, run_child: RunChild) -> None:
    run_child(
        CHILD
        + """
context = abi.IO_URING_BPF_CTX.fields
flags_at = context["open.flags"].offset + (4 if sys.byteorder == "big" else 0)
only_reading = [(LD_W_ABS, 0, 0, flags_at), (0x54, 0, 0, os.O_ACCMODE), (JEQ, 0, 1, 0), (RET, 0, 0, 1), (RET, 0, 0, 0)]
with Ring(4) as ring, Ring(4) as other:
    fd = ring.fileno()
    register.bpf_filter(fd, Op.OPENAT, only_reading, pdu_nbytes=24)
    assert opened(ring, os.O_RDONLY) == 0
    assert opened(ring, os.O_WRONLY) == -errno.EACCES
    assert opened(other, os.O_WRONLY) == 0
    register.bpf_filter(fd, Op.NOP, [(RET, 0, 0, 1)])
    assert nop(ring) == 0
    register.bpf_filter(fd, Op.NOP, [(RET, 0, 0, 0)])
    assert nop(ring) == -errno.EACCES
    assert read(ring) == 1
    register.bpf_filter(fd, Op.NOP, [(RET, 0, 0, 1)], filter_flags=abi.BpfFilter.DENY_REST)
    assert read(ring) == -errno.EACCES
    for program in ([], [(0xFFFF, 0, 0, 0)]):
        try:
            register.bpf_filter(fd, Op.NOP, program)
        except OSError as error:
            assert error.errno == errno.EINVAL
        else:
            raise AssertionError(program)
    try:
        register.bpf_filter(fd, Op.OPENAT, only_reading, filter_flags=abi.BpfFilter.SZ_STRICT)
    except OSError as error:
        assert error.errno == errno.EMSGSIZE and "pdu_nbytes is 24" in str(error), error
    else:
        raise AssertionError("the size went unnoticed")
"""
    )


@pytest.mark.parametrize("ring", ["plain"], indirect=True)
def test_a_filter_of_a_task_is_on_its_new_rings(filters: None, run_child: RunChild) -> None:
    run_child(
        CHILD
        + """
with Ring(4) as before:
    register.bpf_filter_task(Op.READ, [(RET, 0, 0, 0)])
    with Ring(4) as ring:
        assert (nop(ring), read(ring)) == (0, -errno.EACCES)
    assert read(before) == 1
"""
    )


def test_the_bytes_of_a_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int, int, bytes, bytes]] = []

    def record(fd: int, opcode: int, arg_addr: int, nr_args: int) -> int:
        arg = ctypes.string_at(arg_addr, abi.IO_URING_BPF.nbytes)
        program = ctypes.string_at(abi.IO_URING_BPF.get(arg, "filter.filter_ptr"), 16)
        seen.append((fd, opcode, nr_args, arg, program))
        raise OSError(errno.EMSGSIZE, "too small")

    monkeypatch.setattr(syscalls, "register", record)
    with refused(errno.EMSGSIZE, "pdu_nbytes is 12 for this operation"):
        register.bpf_filter_task(
            Op.SOCKET, [(0x15, 1, 2, 0xDEADBEEF), (6, 0, 0, 1)], pdu_nbytes=12, filter_flags=abi.BpfFilter.SZ_STRICT
        )
    ((fd, opcode, nr_args, arg, program),) = seen
    assert (fd, opcode, nr_args) == (-1, Register.BPF_FILTER, 1)
    values = abi.IO_URING_BPF.unpack(arg)
    assert (values["cmd_type"], values["filter.opcode"], values["filter.flags"]) == (1, Op.SOCKET, 2)
    assert (values["filter.filter_len"], values["filter.pdu_size"]) == (2, 12)
    first, second = (abi.SOCK_FILTER.unpack(program, at) for at in (0, 8))
    assert (first["code"], first["jt"], first["jf"], first["k"]) == (0x15, 1, 2, 0xDEADBEEF)
    assert (second["code"], second["k"]) == (6, 1)


def test_the_bytes_of_a_tasks_restrictions(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int, int, bytes]] = []

    def record(fd: int, opcode: int, arg_addr: int, nr_args: int) -> int:
        seen.append((fd, opcode, nr_args, ctypes.string_at(arg_addr, 16 + 5 * 16)))
        return 0

    monkeypatch.setattr(syscalls, "register", record)
    register.restrictions_task([Op.RECV], [Register.PROBE], SqeFlag.ASYNC, SqeFlag.IO_LINK)
    ((fd, opcode, nr_args, arg),) = seen
    assert (fd, opcode, nr_args) == (-1, Register.RESTRICTIONS, 1)
    assert abi.IO_URING_TASK_RESTRICTION.get(arg, "nr_res") == 5
    entry, kind = abi.IO_URING_RESTRICTION, abi.Restriction
    entries = [(entry.get(arg, "opcode", at), entry.get(arg, "sqe_op", at)) for at in range(16, 96, 16)]
    assert entries == [
        (kind.SQE_FLAGS_ALLOWED, SqeFlag.ASYNC),
        (kind.SQE_FLAGS_REQUIRED, SqeFlag.IO_LINK),
        (kind.SQE_OP, Op.RECV),
        (kind.REGISTER_OP, Register.ENABLE_RINGS),
        (kind.REGISTER_OP, Register.PROBE),
    ]
