"""Zero-copy receive: what is asked of the kernel, and its refusals; live where it does without a network card."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Iterator
from typing import Any

import pytest
from registering import needing, refused
from support import address, needs

from rawuring import Ring, abi, register, syscalls

Setup, ZcrxCtrl = abi.Setup, abi.ZcrxCtrl
PAGE = mmap.PAGESIZE
BIG_CQES = Setup.CQE32 | Setup.SINGLE_ISSUER | Setup.DEFER_TASKRUN


@pytest.fixture
def memory() -> Iterator[int]:
    """The address of four pages: an area of two, a region for the refill queue of two."""
    pages = mmap.mmap(-1, 4 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    yield address(pages)
    del pages


@pytest.fixture
def big_cqes() -> Iterator[Ring]:
    with needing(Setup.DEFER_TASKRUN.since):
        made = Ring(4, BIG_CQES)
    with made:
        yield made


def test_the_bytes_of_a_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(fd: int, opcode: int, arg_addr: int, nr_args: int) -> int:
        assert (fd, opcode, nr_args) == (5, abi.Register.ZCRX_IFQ, 1)
        layout = abi.IO_URING_ZCRX_IFQ_REG
        arg = (ctypes.c_char * layout.nbytes).from_address(arg_addr)
        values = layout.unpack(arg)
        assert (values["if_idx"], values["if_rxq"], values["rq_entries"], values["flags"]) == (2, 3, 100, 1)
        assert (values["rx_buf_len"], values["event_desc"], values["zcrx_id"]) == (8192, 0x7000, 0)
        area = (ctypes.c_char * abi.IO_URING_ZCRX_AREA_REG.nbytes).from_address(values["area_ptr"])
        region = (ctypes.c_char * abi.IO_URING_REGION_DESC.nbytes).from_address(values["region_ptr"])
        found = abi.IO_URING_ZCRX_AREA_REG.unpack(area)
        assert (found["addr"], found["len"], found["flags"], found["dmabuf_fd"]) == (0, 0x2000, 1, 9)
        found = abi.IO_URING_REGION_DESC.unpack(region)
        assert (found["user_addr"], found["size"], found["flags"]) == (0x4000, 0x1000, 1)
        for field, value in (
            ("zcrx_id", 1), ("rq_entries", 128), ("offsets.head", 4), ("offsets.tail", 8), ("offsets.rqes", 64)
        ):  # fmt: skip
            layout.put(arg, field, value)
        abi.IO_URING_ZCRX_AREA_REG.put(area, "rq_area_token", 1 << abi.ZCRX_AREA_SHIFT)
        abi.IO_URING_REGION_DESC.put(region, "mmap_offset", 0x3000_0000)
        return 0

    monkeypatch.setattr(syscalls, "register", answer)
    found = register.ifq(
        5, 2, 3, 100, (0, 0x2000), (0x4000, 0x1000),
        zcrx_flags=abi.ZcrxReg.IMPORT, dmabuf_fd=9, rx_buf_nbytes=8192, event_desc_addr=0x7000,
    )  # fmt: skip
    assert found == (1, 128, 4, 8, 64, 1 << abi.ZCRX_AREA_SHIFT, 0x3000_0000)


def test_the_bytes_of_a_control(monkeypatch: pytest.MonkeyPatch) -> None:
    layout, token = abi.ZCRX_CTRL, 3 << abi.ZCRX_AREA_SHIFT
    seen: list[dict[str, Any]] = []

    def answer(fd: int, opcode: int, arg_addr: int, nr_args: int) -> int:
        assert (fd, opcode, nr_args) == (5, abi.Register.ZCRX_CTRL, 0)
        arg = (ctypes.c_char * layout.nbytes).from_address(arg_addr)
        seen.append(layout.unpack(arg))
        if layout.get(arg, "op") == ZcrxCtrl.EXPORT:
            layout.put(arg, "zc_export.zcrx_fd", 44)
        if layout.get(arg, "op") == ZcrxCtrl.ADD_AREA:
            area_layout = abi.IO_URING_ZCRX_AREA_REG
            area = (ctypes.c_char * area_layout.nbytes).from_address(layout.get(arg, "zc_area.area_ptr"))
            assert (area_layout.get(area, "addr"), area_layout.get(area, "len")) == (0x8000, 0x1000)
            area_layout.put(area, "rq_area_token", token)
        return 0

    monkeypatch.setattr(syscalls, "register", answer)
    assert register.zcrx_ctrl(5, 7, ZcrxCtrl.FLUSH_RQ) == 0
    assert register.zcrx_ctrl(5, 7, ZcrxCtrl.EXPORT) == 44
    assert register.zcrx_ctrl(5, 7, ZcrxCtrl.ARM_EVENT, event_type=abi.ZcrxEvent.COPY) == 0
    assert register.zcrx_ctrl(5, 7, ZcrxCtrl.ADD_AREA, area=(0x8000, 0x1000)) == token
    assert [(values["zcrx_id"], values["op"]) for values in seen] == [(7, 0), (7, 1), (7, 2), (7, 3)]
    assert seen[2]["zc_arm_event.event_type"] == 1
    assert not any(seen[0]["zc_flush"])


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.EPERM, "needs CAP_NET_ADMIN"),
        (errno.ENODEV, "no network interface"),
        (errno.EOPNOTSUPP, "no queues for zero-copy"),
        (errno.EINVAL, "needs Linux 6.15, a ring with"),
        (errno.EBUSY, "busy"),
    ],
)
def test_a_refusal_says_why(code: int, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(syscalls, "register", refuse)
    with refused(code, f"(?i){reason}"):
        register.ifq(3, 1, 0, 16, (0, PAGE), (0, PAGE))
    with refused(code, f"(?i){reason}"):
        register.ifq_import(3, 4)


def test_what_cannot_receive_without_copies(big_cqes: Ring, memory: int) -> None:
    fd = big_cqes.fileno()
    area, region = (memory, 2 * PAGE), (memory + 2 * PAGE, 2 * PAGE)
    with needing(abi.Register.ZCRX_IFQ.since):
        try:
            register.ifq(fd, 2**31 - 1, 0, 16, area, region)
        except PermissionError:
            pytest.skip("only CAP_NET_ADMIN may ask")
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
    with refused(errno.EOPNOTSUPP, "no queues"):
        register.ifq(fd, 1, 0, 16, area, region)  # the loopback interface
    with Ring(4) as small_cqes, refused(errno.EINVAL, "CQE32"):
        register.ifq(small_cqes.fileno(), 1, 0, 16, area, region)


def test_controls_of_no_queue(big_cqes: Ring) -> None:
    with refused(errno.ENXIO), needing(abi.Register.ZCRX_CTRL.since):
        register.zcrx_ctrl(big_cqes.fileno(), 7, ZcrxCtrl.FLUSH_RQ)


def test_a_queue_without_a_device(big_cqes: Ring, memory: int) -> None:
    fd, entries = big_cqes.fileno(), 16
    with needing(abi.ZcrxReg.NODEV.since):
        zcrx = register.queries().zcrx
    needs(abi.ZcrxReg.NODEV.since, zcrx is not None and bool(zcrx.register_flags & abi.ZcrxReg.NODEV))
    assert zcrx is not None
    try:
        queue = register.ifq(
            fd, 0, 0, entries, (memory, 2 * PAGE), (memory + 2 * PAGE, 2 * PAGE), zcrx_flags=abi.ZcrxReg.NODEV
        )
    except PermissionError:
        pytest.skip("only CAP_NET_ADMIN may ask")
    assert queue.rq_entries == entries
    assert len({queue.head_offset, queue.tail_offset, queue.rqes_offset}) == 3
    assert register.zcrx_ctrl(fd, queue.zcrx_id, ZcrxCtrl.FLUSH_RQ) == 0
    with refused(errno.ENXIO):
        register.zcrx_ctrl(fd, queue.zcrx_id + 1, ZcrxCtrl.FLUSH_RQ)
    exported = register.zcrx_ctrl(fd, queue.zcrx_id, ZcrxCtrl.EXPORT)
    try:
        with Ring(4, BIG_CQES) as other:
            imported = register.ifq_import(other.fileno(), exported)
            assert register.zcrx_ctrl(other.fileno(), imported, ZcrxCtrl.FLUSH_RQ) == 0
    finally:
        os.close(exported)
