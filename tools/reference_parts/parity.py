"""The part on liburing: each of its public functions, and what is ours in its stead or why nothing is.

Imports the standard library and its neighbours. LIBURING is the one list of liburing's functions
here; tests/test_prep.py takes the encoders' from it.

A name of ours is dotted from an alias of ALIASES, or from `rawuring`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from .markdown import code, table, text, without_empty
from .operations import encoders, link_to

TITLE = "liburing and rawuring"
VERSION = "2.15"

ALIASES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "sq": "sq.SubmissionQueue",
        "cq": "cq.CompletionQueue",
        "ring": "ring.Ring",
        "pool": "buffers.BufferRing",
        "operation": "inflight.Operation",
    }
)
"""Names that the page uses for objects, and their classes in `rawuring`."""


class Ours(NamedTuple):
    """What stands for a function of liburing: names of ours, and what there is to say."""

    names: tuple[str, ...]
    why: str = ""


def _ours(names: str, why: str = "") -> Ours:
    return Ours(tuple(names.split()), why)


def _instead(why: str) -> Ours:
    return Ours((), why)


def _preps(names: str, others: Mapping[str, Ours] = MappingProxyType({})) -> dict[str, Ours]:
    """Helpers that write an SQE: the encoder of the same name, if `others` do not say otherwise."""
    same = {f"io_uring_{name}": Ours((f"sq.{name}",)) for name in names.split()}
    return dict(sorted({**same, **others}.items()))


_KERNEL_DECIDES = "no liburing is here: ask the kernel what it can do, by `ring.supports` or `register.query`"
_ENCODERS_FIND_IT = "an encoder takes the next slot itself, and raises SubmissionQueueFullError when there is none"
_WHOLE = "an encoder writes a whole SQE: nothing is left to initialize"
_MEMORY = "a set-up that fails for its memory says how much is allowed, and how to have more"
_VALUES = "a completion is a tuple (user_data, res, cqe_flags): its first value"
_WAITED = "waits; then `ring.completions` takes what is there"
_COMMITS = "one call for one buffer or many: it writes the entries and stores the tail once"

LIBURING: Final[Mapping[str, Mapping[str, Ours]]] = MappingProxyType(
    {
        "Prep helpers: files": _preps(
            """
            prep_close prep_close_direct prep_fadvise prep_fadvise64 prep_fallocate prep_fgetxattr prep_files_update
            prep_fixed_fd_install prep_fsetxattr prep_fsync prep_ftruncate prep_getxattr prep_link prep_linkat
            prep_madvise prep_madvise64 prep_mkdir prep_mkdirat prep_open prep_open_direct prep_openat prep_openat2
            prep_openat2_direct prep_openat_direct prep_pipe prep_pipe_direct prep_provide_buffers prep_read
            prep_read_fixed prep_read_multishot prep_readv prep_readv2 prep_readv_fixed prep_remove_buffers prep_rename
            prep_renameat prep_setxattr prep_splice prep_statx prep_symlink prep_symlinkat prep_sync_file_range prep_tee
            prep_unlink prep_unlinkat prep_write prep_write_fixed prep_writev prep_writev2 prep_writev_fixed
            """
        ),
        "Prep helpers: network": _preps(
            """
            prep_accept prep_accept_direct prep_bind prep_cmd_getsockname prep_cmd_sock prep_connect prep_epoll_ctl
            prep_epoll_wait prep_listen prep_multishot_accept prep_multishot_accept_direct prep_recv prep_recv_multishot
            prep_recvmsg prep_recvmsg_multishot prep_send prep_send_bundle prep_send_zc prep_send_zc_fixed prep_sendmsg
            prep_sendmsg_zc prep_sendmsg_zc_fixed prep_sendto prep_shutdown prep_socket prep_socket_direct
            prep_socket_direct_alloc
            """,
            {
                "io_uring_prep_send_set_addr": _ours(
                    "sq.prep_sendto sq.prep_send_zc sq.prep_send_zc_fixed",
                    "the address is an argument, since an SQE is written at once",
                )
            },
        ),
        "Prep helpers: waiting": _preps(
            """
            prep_cancel prep_cancel64 prep_cancel_fd prep_futex_wait prep_futex_waitv prep_futex_wake prep_link_timeout
            prep_msg_ring prep_msg_ring_cqe_flags prep_msg_ring_fd prep_msg_ring_fd_alloc prep_poll_add
            prep_poll_multishot prep_poll_remove prep_poll_update prep_timeout prep_timeout_remove prep_timeout_update
            prep_waitid
            """
        ),
        "Prep helpers: commands and others": _preps(
            "prep_cmd_discard prep_cmd_zone_reset_all prep_nop prep_nop128 prep_rw prep_uring_cmd prep_uring_cmd128",
            {
                "__io_uring_prep_uring_cmd": _ours(
                    "sq.prep_uring_cmd sq.prep_uring_cmd128", "what the two share, and no call of its own"
                )
            },
        ),
        "System calls": {
            "io_uring_setup": _ours("syscalls.setup"),
            "io_uring_enter": _ours("syscalls.enter"),
            "io_uring_enter2": _ours("syscalls.enter", "with `arg_addr` and `argsz`"),
            "io_uring_register": _ours("syscalls.register"),
        },
        "Versions": {
            "io_uring_check_version": _instead(_KERNEL_DECIDES),
            "io_uring_major_version": _instead(_KERNEL_DECIDES),
            "io_uring_minor_version": _instead(_KERNEL_DECIDES),
        },
        "What the kernel can do": {
            "io_uring_free_probe": _instead("`register.probe` returns a frozenset"),
            "io_uring_get_probe": _ours("register.query", "before Linux 6.18 only a ring can be asked"),
            "io_uring_get_probe_ring": _ours("register.probe"),
            "io_uring_opcode_supported": _ours("ring.supports ring.require"),
            "io_uring_register_probe": _ours("register.probe"),
            "io_uring_register_query": _ours("register.query register.queries"),
        },
        "Slots of the submission queue": {
            "__io_uring_sqring_wait": _ours("syscalls.enter abi.Enter.SQ_WAIT", "owned operations wait so for room"),
            "_io_uring_get_sqe": _instead(_ENCODERS_FIND_IT),
            "io_uring_get_sqe": _instead(_ENCODERS_FIND_IT),
            "io_uring_get_sqe128": _instead(_ENCODERS_FIND_IT),
            "io_uring_initialize_sqe": _instead(_WHOLE),
            "io_uring_load_sq_head": _ours("sq.look"),
            "io_uring_sq_ready": _ours("sq.ready"),
            "io_uring_sq_space_left": _ours("sq.space_left"),
            "io_uring_sqe_set_buf_group": _instead("`buf_group` of the encoders"),
            "io_uring_sqe_set_data": _ours(
                "operation.token", "a pointer is of no use here: an owned operation is found by its token"
            ),
            "io_uring_sqe_set_data64": _instead("`user_data` of every encoder"),
            "io_uring_sqe_set_flags": _instead("`sqe_flags` of every encoder"),
            "io_uring_sqe_shift": _ours("mmap_ring.sqe_nbytes"),
            "io_uring_sqe_shift_from_flags": _ours("mmap_ring.sqe_nbytes"),
            "io_uring_sqring_wait": _ours("syscalls.enter abi.Enter.SQ_WAIT", "owned operations wait so for room"),
        },
        "Making a ring": {
            "io_uring_close_ring_fd": _ours(
                "register.ring_fd abi.Setup.REGISTERED_FD_ONLY",
                "a `Ring` keeps its fd, by which it is polled and closed; with the flag it never has one",
            ),
            "io_uring_enable_rings": _ours("ring.enable register.enable_rings"),
            "io_uring_memory_size": _instead(_MEMORY),
            "io_uring_memory_size_params": _instead(_MEMORY),
            "io_uring_mlock_size": _instead(_MEMORY),
            "io_uring_mlock_size_params": _instead(_MEMORY),
            "io_uring_queue_exit": _ours("ring.close", "which first cancels, and waits until the kernel is done"),
            "io_uring_queue_init": _ours("Ring"),
            "io_uring_queue_init_mem": _ours(
                "Ring abi.Setup.NO_MMAP mmap_ring.OwnMemory", "with the flag a `Ring` allocates the memory itself"
            ),
            "io_uring_queue_init_params": _ours("Ring"),
            "io_uring_queue_mmap": _ours("mmap_ring.MappedRing"),
            "io_uring_resize_rings": _ours("ring.resize register.resize_rings"),
            "io_uring_ring_dontfork": _ours(
                "errors.ForkedRingError", "a forked child lets go of its parent's rings, and they refuse to work there"
            ),
            "io_uring_set_iowait": _ours("ring.set_iowait"),
        },
        "Submitting": {
            "io_uring_submit": _ours("ring.submit"),
            "io_uring_submit_and_get_events": _ours("ring.submit_and_wait", "`nr` 0"),
            "io_uring_submit_and_wait": _ours("ring.submit_and_wait"),
            "io_uring_submit_and_wait_min_timeout": _ours("ring.submit_and_wait", "`min_wait_ns` and `timeout_ns`"),
            "io_uring_submit_and_wait_reg": _ours(
                "ring.submit_and_wait register.region register.reg_wait", "of a `Ring` made with `register_waits`"
            ),
            "io_uring_submit_and_wait_timeout": _ours("ring.submit_and_wait", "`timeout_ns` and `signal_mask`"),
        },
        "Waiting": {
            "__io_uring_get_cqe": _ours("ring.submit_and_wait ring.completions", _WAITED),
            "io_uring_get_events": _ours("ring.submit_and_wait", "`nr` 0"),
            "io_uring_wait_cqe": _ours("ring.submit_and_wait ring.completions", _WAITED),
            "io_uring_wait_cqe_nr": _ours("ring.submit_and_wait ring.completions", "`nr`"),
            "io_uring_wait_cqe_timeout": _ours("ring.submit_and_wait ring.completions", "`timeout_ns`"),
            "io_uring_wait_cqes": _ours("ring.submit_and_wait ring.completions", "`timeout_ns`, `signal_mask`"),
            "io_uring_wait_cqes_min_timeout": _ours("ring.submit_and_wait ring.completions", "`min_wait_ns`, too"),
        },
        "Completions": {
            "__io_uring_peek_cqe": _ours("cq.peek"),
            "io_uring_cq_advance": _ours("cq.advance_to"),
            "io_uring_cq_eventfd_enabled": _instead("what `cq.eventfd_enabled` set last, which nobody else changes"),
            "io_uring_cq_eventfd_toggle": _ours("cq.eventfd_enabled"),
            "io_uring_cq_has_overflow": _ours("cq.overflowed"),
            "io_uring_cq_ready": _ours("cq.ready"),
            "io_uring_cqe_get_data": _instead(_VALUES),
            "io_uring_cqe_get_data64": _instead(_VALUES),
            "io_uring_cqe_iter_init": _ours("ring.completions cq.drain cq.drain32"),
            "io_uring_cqe_iter_next": _ours("ring.completions cq.drain cq.drain32"),
            "io_uring_cqe_nr": _ours("cq.drain cq.drain32", "they step over both slots of a CQE of 32 bytes"),
            "io_uring_cqe_seen": _ours("cq.drain cq.advance_to", "a drain takes all that is there, with one store"),
            "io_uring_cqe_shift": _ours("mmap_ring.cqe_nbytes"),
            "io_uring_cqe_shift_from_flags": _ours("mmap_ring.cqe_nbytes"),
            "io_uring_peek_batch_cqe": _ours("cq.peek cq.drain"),
            "io_uring_peek_cqe": _ours("cq.peek"),
        },
        "What a multishot RECVMSG brings": {
            "io_uring_recvmsg_cmsg_firsthdr": _ours("operations.messages.LentMessage.ancdata"),
            "io_uring_recvmsg_cmsg_nexthdr": _ours("operations.messages.LentMessage.ancdata"),
            "io_uring_recvmsg_name": _ours("operations.messages.LentMessage.address"),
            "io_uring_recvmsg_payload": _ours("operations.messages.LentMessage.payload"),
            "io_uring_recvmsg_payload_length": _ours("operations.messages.LentMessage.payload", "its length"),
            "io_uring_recvmsg_validate": _ours("operations.messages.MessageStream.lend"),
        },
        "Buffer rings": {
            "__io_uring_buf_ring_cq_advance": _ours("pool.give_back", _COMMITS),
            "io_uring_buf_ring_add": _ours("pool.give_back", _COMMITS),
            "io_uring_buf_ring_advance": _ours("pool.give_back", _COMMITS),
            "io_uring_buf_ring_available": _ours("register.buf_ring_head", "the tail less the head"),
            "io_uring_buf_ring_cq_advance": _ours("pool.give_back cq.drain", "two stores: a drain comes first"),
            "io_uring_buf_ring_head": _ours("register.buf_ring_head"),
            "io_uring_buf_ring_init": _ours("ring.buffer_ring"),
            "io_uring_buf_ring_mask": _instead("`count` of the group is a power of two"),
            "io_uring_free_buf_ring": _ours("ring.close_buffer_ring"),
            "io_uring_register_buf_ring": _ours("register.pbuf_ring"),
            "io_uring_setup_buf_ring": _ours("ring.buffer_ring register.map_pbuf_ring"),
            "io_uring_unregister_buf_ring": _ours("register.unregister_pbuf_ring"),
        },
        "Registered buffers": {
            "__io_uring_clone_buffers": _ours("register.clone_buffers", "`clone_flags`"),
            "__io_uring_clone_buffers_offset": _ours("register.clone_buffers", "`clone_flags`"),
            "io_uring_clone_buffers": _ours("register.clone_buffers"),
            "io_uring_clone_buffers_offset": _ours("register.clone_buffers", "`dst_off`, `src_off`, `nr`"),
            "io_uring_register_buffers": _ours("register.buffers ring.register_buffers"),
            "io_uring_register_buffers_sparse": _ours("register.buffers_sparse"),
            "io_uring_register_buffers_tags": _ours("register.buffers_tags"),
            "io_uring_register_buffers_update_tag": _ours("register.buffers_update_tag"),
            "io_uring_unregister_buffers": _ours("register.unregister_buffers"),
        },
        "Registered files": {
            "io_uring_register_file_alloc_range": _ours("register.file_alloc_range"),
            "io_uring_register_files": _ours("register.files"),
            "io_uring_register_files_sparse": _ours("register.files_sparse ring.file_table"),
            "io_uring_register_files_tags": _ours("register.files_tags"),
            "io_uring_register_files_update": _ours("register.files_update"),
            "io_uring_register_files_update_tag": _ours("register.files_update_tag"),
            "io_uring_unregister_files": _ours("register.unregister_files"),
        },
        "Zero-copy receive": {
            "io_uring_register_ifq": _ours("register.ifq register.ifq_import"),
            "io_uring_register_zcrx_ctrl": _ours("register.zcrx_ctrl"),
        },
        "Other registrations": {
            "io_uring_register_bpf_filter": _ours("register.bpf_filter"),
            "io_uring_register_bpf_filter_task": _ours("register.bpf_filter_task"),
            "io_uring_register_clock": _ours("register.clock ring.register_clock"),
            "io_uring_register_eventfd": _ours("register.eventfd ring.register_eventfd"),
            "io_uring_register_eventfd_async": _ours("register.eventfd ring.register_eventfd", "`only_async`"),
            "io_uring_register_iowq_aff": _ours("register.iowq_aff"),
            "io_uring_register_iowq_max_workers": _ours("register.iowq_max_workers"),
            "io_uring_register_napi": _ours("register.napi register.napi_add_id register.napi_del_id"),
            "io_uring_register_personality": _ours("register.personality"),
            "io_uring_register_region": _ours("register.region"),
            "io_uring_register_restrictions": _ours("register.restrictions register.restrictions_task"),
            "io_uring_register_ring_fd": _ours("register.ring_fd", "a `Ring` does it with `register_ring_fd`"),
            "io_uring_register_sync_cancel": _ours("register.sync_cancel"),
            "io_uring_register_sync_msg": _ours("register.sync_msg"),
            "io_uring_register_wait_reg": _ours("register.region", "liburing's own is a stub that answers EINVAL"),
            "io_uring_unregister_eventfd": _ours("register.unregister_eventfd ring.unregister_eventfd"),
            "io_uring_unregister_iowq_aff": _ours("register.unregister_iowq_aff"),
            "io_uring_unregister_napi": _ours("register.unregister_napi"),
            "io_uring_unregister_personality": _ours("register.unregister_personality"),
            "io_uring_unregister_ring_fd": _ours("register.unregister_ring_fd"),
        },
    }
)
"""By group, and within it by name: every public function of liburing, and what is ours."""

MACROS: Final[Mapping[str, Ours]] = MappingProxyType(
    {
        "io_uring_for_each_cqe": _ours("ring.completions cq.drain"),
        "IO_URING_CHECK_VERSION": _instead(_KERNEL_DECIDES),
        "IO_URING_VERSION_MAJOR": _instead(_KERNEL_DECIDES),
        "IO_URING_VERSION_MINOR": _instead(_KERNEL_DECIDES),
        "LIBURING_HAVE_DATA64": _instead("`user_data` always has 64 bits"),
        "LIBURING_UDATA_TIMEOUT": _ours("abi.UDATA_TIMEOUT"),
        "io_uring_smp_load_acquire": _ours("atomics.Word32.load_acquire atomics.Word16.load_acquire"),
        "io_uring_smp_store_release": _ours("atomics.Word32.store_release atomics.Word16.store_release"),
        "io_uring_smp_mb": _ours("atomics.full_fence"),
        "IO_URING_READ_ONCE": _ours("atomics.Word32.load"),
        "IO_URING_WRITE_ONCE": _ours("atomics.Word32.store"),
    }
)
"""Its public macros."""

HELPERS: Final[Mapping[str, Ours]] = MappingProxyType(
    {
        name: ours
        for group, functions in LIBURING.items()
        if group.startswith("Prep helpers")
        for name, ours in functions.items()
    }
)
"""Every io_uring_prep_* function of liburing."""


def _operations(ours: Ours) -> str:
    names = {name.removeprefix("sq.") for name in ours.names}
    return ", ".join(link_to(op) for op, functions in encoders().items() if names & {each.name for each in functions})


def everything() -> Iterable[tuple[str, Mapping[str, Ours]]]:
    yield from LIBURING.items()
    yield "Macros", MACROS


def resolve(name: str) -> object:
    """The object behind a name of ours; AttributeError if there is none."""
    first, *rest = name.split(".")
    found: object = importlib.import_module("rawuring")
    for part in (*ALIASES.get(first, first).split("."), *rest):
        try:
            found = getattr(found, part)
        except AttributeError:
            parent = getattr(found, "__spec__", None)
            if parent is None:
                raise
            try:
                found = importlib.import_module(f"{parent.name}.{part}")
            except ModuleNotFoundError:
                raise AttributeError(f"rawuring has no {name}") from None
    return found


def lines() -> list[str]:
    """The whole part."""
    count = sum(map(len, LIBURING.values()))
    classes = ", ".join(f"{code(alias)} a {code(cls.rpartition('.')[2])}" for alias, cls in ALIASES.items())
    shown = [
        f"## {TITLE}",
        "",
        f"All {count} public functions of liburing {VERSION}, and its macros: what is ours, or why there is nothing. "
        f"{classes}; other names are modules of `rawuring`, or in it. For much of it the owned layer has something "
        "simpler: see the operations.",
        "",
    ]
    for group, functions in everything():
        rows = [
            [code(name), ", ".join(map(code, ours.names)), _operations(ours) if name in HELPERS else "", text(ours.why)]
            for name, ours in functions.items()
        ]
        headings = ["liburing", "rawuring", "operation", "why, or how"]
        shown += [f"### {group}", "", *table(*without_empty(headings, rows)), ""]
    return shown
