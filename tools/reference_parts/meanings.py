"""What each flag and each value of the ABI says and needs, in our words: what the enums of `rawuring.abi` leave out.

Imports rawuring.abi only. Values, releases and man pages are in `rawuring.abi` alone, as are the rules
between set-up flags.

A line of MEANINGS is `NAME  what it says; what it needs`; the needs may be missing. Of a set that
several operations share, ONLY_FOR names the operations that a flag is for, if it is not for all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from textwrap import dedent
from types import MappingProxyType
from typing import Final, NamedTuple

from rawuring import abi
from rawuring.abi import Op
from rawuring.abi.constants import Flag, Value

__all__ = ["MEANINGS", "ONLY_FOR", "Enum", "Meaning"]

Enum = type[Flag] | type[Value]


class Meaning(NamedTuple):
    """What a member says, and what it needs ("" if nothing beyond its kernel)."""

    says: str
    needs: str


_LINES: Final[Mapping[Enum, str]] = {
    abi.SqeFlag: """
        FIXED_FILE        `fd` is a slot of the file table; a file table, and an operation on an open file
        IO_DRAIN          starts when everything before it has completed, and holds up what comes after; a ring on
                          which nothing with CQE_SKIP_SUCCESS was submitted (EOPNOTSUPP)
        IO_LINK           the next request starts when this one has succeeded, and otherwise ends with ECANCELED, as
                          the rest of the chain does; to be submitted with the next: a chain ends where a submission
                          ends
        IO_HARDLINK       as IO_LINK, but the chain goes on when this request fails; as IO_LINK
        ASYNC             goes to a worker thread at once, without a first attempt
        BUFFER_SELECT     the memory is a buffer of group `buf_group`, picked when there is data; provided buffers,
                          and an operation that takes them (EOPNOTSUPP)
        CQE_SKIP_SUCCESS  posts no CQE if it succeeds; Feature.CQE_SKIP; not for zero-copy sends (EINVAL)
    """,
    abi.Nop: """
        INJECT_RESULT  `res` of the CQE is `len` of the SQE
        FILE           look up `fd` as a request with a file does
        FIXED_FILE     `fd` is a slot of the file table; FILE, and a file table
        FIXED_BUFFER   look up registered buffer `buf_index`; registered buffers
        TW             complete through task work
        CQE32          post a CQE of 32 bytes, whose second half is `off` and `addr`; Setup.CQE32 or Setup.CQE_MIXED
                       (EINVAL)
    """,
    abi.RwAttr: """
        PI  `attr_ptr` points to a struct io_uring_attr_pi, protection information that goes with the data;
            Feature.RW_ATTR, O_DIRECT, and a device with such metadata
    """,
    abi.Fsync: """
        DATASYNC  leave out metadata that is not needed to read the data, as fdatasync(2) does
    """,
    abi.Splice: """
        FD_IN_FIXED  `splice_fd_in` is a slot of the file table; a file table
    """,
    abi.RecvSend: """
        POLL_FIRST       wait for the socket first, without an attempt that would find nothing
        RECV_MULTISHOT   a CQE each time data comes, until the one without MORE; BUFFER_SELECT for RECV and RECVMSG
                         (EINVAL)
        FIXED_BUF        the data is in registered buffer `buf_index`; registered buffers; Linux 6.15 for SENDMSG_ZC
        ZC_REPORT_USAGE  `res` of the second CQE is NOTIF_USAGE_ZC_COPIED if the data was copied after all, else 0
        BUNDLE           fill or send several buffers of the group at once, in their order; BUFFER_SELECT, a buffer
                         ring, and Feature.RECVSEND_BUNDLE
        VECTORIZED       `addr` is a struct iovec[] of `len` entries
    """,
    abi.Accept: """
        MULTISHOT   a CQE for each connection, until the one without MORE; into a file table only with
                    FILE_INDEX_ALLOC (EINVAL)
        DONTWAIT    EAGAIN if no connection is waiting
        POLL_FIRST  wait for a connection first, without an attempt that would find none
    """,
    abi.Poll: """
        ADD_MULTI         a CQE at each event, until the one without MORE
        UPDATE_EVENTS     give the poll request other events
        UPDATE_USER_DATA  give the poll request another `user_data`, which is in `off`
        ADD_LEVEL         a CQE for as long as the event lasts, not only when it begins; refused with EINVAL (seen on
                          Linux 6.18)
    """,
    abi.Timeout: """
        ABS            a point in time, not a duration; not with MULTISHOT (EINVAL)
        UPDATE         give the timeout another time instead of removing it
        BOOTTIME       the clock goes on while the machine sleeps (CLOCK_BOOTTIME); not with REALTIME (EINVAL)
        REALTIME       the clock is the time of day (CLOCK_REALTIME); not with BOOTTIME (EINVAL)
        LINK_UPDATE    the timeout to update is a LINK_TIMEOUT; UPDATE
        ETIME_SUCCESS  that the time has passed is a success: it breaks no chain
        MULTISHOT      repeat `count` times, 0 without end, a CQE each time; not with ABS (EINVAL)
        IMMEDIATE_ARG  nanoseconds stand where the address of a timespec would
    """,
    abi.Cancel: """
        ALL       every request that matches, not the first alone; `res` counts them
        FD        match the file `fd`; not with ANY (EINVAL)
        ANY       match everything; `res` counts; not with FD (EINVAL)
        FD_FIXED  `fd` is a slot of the file table; FD, and a file table (EBADF)
        USERDATA  match `user_data` too, beside FD or OP
        OP        match the operation in `len`
    """,
    abi.MsgRing: """
        CQE_SKIP    post no CQE to the ring that gets the file; MsgRingCommand.SEND_FD (EINVAL)
        FLAGS_PASS  `file_index` becomes the flags of the CQE in the other ring
    """,
    abi.MsgRingCommand: """
        DATA     a CQE with `off` as its `user_data` and `len` as its `res`
        SEND_FD  the file in a slot of this ring's table goes into a slot of the other's; a file table on both rings
    """,
    abi.FixedFd: """
        NO_CLOEXEC  leave the new fd open across exec; else it is closed there
    """,
    abi.Futex2: """
        SIZE_U16  the word has 16 bits; the kernel has words of 32 bits only (EINVAL)
        SIZE_U32  the word has 32 bits
        PRIVATE   the word is used within one process only
    """,
    abi.UringCmd: """
        FIXED      the memory is registered buffer `buf_index`; registered buffers; not with MULTISHOT
        MULTISHOT  several CQEs, each with a buffer of group `buf_group`; BUFFER_SELECT (EINVAL), and a driver that
                   does it
    """,
    abi.SocketOp: """
        SIOCINQ       `res` is how many bytes can be read
        SIOCOUTQ      `res` is how many bytes are not sent yet
        GETSOCKOPT    read an option; of level SOL_SOCKET only (EOPNOTSUPP)
        SETSOCKOPT    set an option
        TX_TIMESTAMP  a CQE for each time stamp of what was sent; CQEs of 32 bytes (EINVAL)
        GETSOCKNAME   the socket's address, or that of its peer
    """,
    abi.BlockOp: """
        DISCARD         give up the data of a range; a block device, open for writing
        ZONE_RESET_ALL  reset every zone; a zoned block device, open for writing
    """,
    abi.CqeFlag: """
        BUFFER         the data is in a provided buffer, whose id is the high half of the flags
        MORE           more CQEs of this request will follow
        SOCK_NONEMPTY  the socket has more to read, or (Linux 6.10) more connections to accept
        NOTIF          the second CQE of a zero-copy send: its memory is yours again
        BUF_MORE       the buffer has room left, where the next data will be; an incremental buffer ring
        SKIP           fills a gap at the end of the ring: look away; Setup.CQE_MIXED
        F_32           this CQE has 32 bytes; Setup.CQE_MIXED
    """,
    abi.TimestampCqeFlag: """
        TSTAMP_HW  the hardware made the time stamp; SocketOp.TX_TIMESTAMP
    """,
    abi.Setup: """
        IOPOLL              ask the device for completions instead of having it interrupt; files opened with O_DIRECT
                            that can be polled; READ and WRITE and their kin, NOP, MSG_RING, FILES_UPDATE, provided
                            buffers and commands alone
        SQPOLL              a thread of the kernel takes SQEs without an enter; Linux 5.11 for ordinary fds, and 5.13
                            for users without privileges
        SQ_AFF              the SQ thread runs on CPU `sq_thread_cpu`
        CQSIZE              the CQ has `cq_entries` entries
        CLAMP               take the largest ring there is where more was asked for
        ATTACH_WQ           share worker threads, and the SQ thread, with the ring `wq_fd`
        R_DISABLED          the ring starts disabled, until ENABLE_RINGS
        SUBMIT_ALL          a bad SQE does not stop the submission
        COOP_TASKRUN        completions are worked on at the next system call instead of interrupting the thread
        TASKRUN_FLAG        SqRingFlag.TASKRUN says that such work is waiting
        SQE128              every SQE has 128 bytes
        CQE32               every CQE has 32 bytes
        SINGLE_ISSUER       one thread submits, and every other gets EEXIST
        DEFER_TASKRUN       completions are worked on when the owner enters to get them, and not before
        NO_MMAP             the queues are in memory of the process; up to Linux 6.9 contiguous memory: a page, or a
                            huge one
        REGISTERED_FD_ONLY  the answer is a registered index, and no fd
        NO_SQARRAY          SQEs go in the order of their slots, without an array of indices
        HYBRID_IOPOLL       sleep for a while before asking the device
        CQE_MIXED           CQEs of 16 and of 32 bytes; CqeFlag.F_32 marks the latter
        SQE_MIXED           SQEs of 64 bytes, and NOP128 and URING_CMD128 of 128
        SQ_REWIND           each submission starts at slot 0 again
    """,
    abi.Feature: """
        SINGLE_MMAP      both queues are in one mapping
        NODROP           what does not fit the CQ is kept, not lost
        SUBMIT_STABLE    what an SQE points to, other than data, is read when it is consumed
        RW_CUR_POS       an offset of -1 is the file's own position
        CUR_PERSONALITY  a request acts as who submitted it
        FAST_POLL        what would block waits by an internal poll, not in a worker thread
        POLL_32BITS      32 bits of poll events, EPOLLEXCLUSIVE among them
        SQPOLL_NONFIXED  an SQPOLL ring takes ordinary fds
        EXT_ARG          an enter takes a timeout
        NATIVE_WORKERS   workers are threads of the process
        RSRC_TAGS        tagged buffers and files, and updates of the buffer table
        CQE_SKIP         SqeFlag.CQE_SKIP_SUCCESS
        LINKED_FILE      a request in a chain uses a file that one before it opened
        REG_REG_RING     io_uring_register takes the index of a registered ring
        RECVSEND_BUNDLE  RecvSend.BUNDLE, and provided buffers for SEND
        MIN_TIMEOUT      an enter takes a minimum wait
        RW_ATTR          reads and writes take attributes (RwAttr)
        NO_IOWAIT        Enter.NO_IOWAIT
    """,
    abi.SqRingFlag: """
        NEED_WAKEUP  the SQ thread sleeps: enter with Enter.SQ_WAKEUP; Setup.SQPOLL
        CQ_OVERFLOW  the kernel keeps CQEs that did not fit: enter with Enter.GETEVENTS; Feature.NODROP
        TASKRUN      work is waiting that may post CQEs: enter with Enter.GETEVENTS; Setup.TASKRUN_FLAG
    """,
    abi.CqRingFlag: """
        EVENTFD_DISABLED  completions signal no eventfd
    """,
    abi.MmapOffset: """
        SQ_RING    the submission queue, and with Feature.SINGLE_MMAP both
        CQ_RING    the completion queue
        SQES       the array of SQEs
        PBUF_RING  a buffer ring, with its group shifted by OFF_PBUF_SHIFT; PbufRing.MMAP
    """,
    abi.Enter: """
        GETEVENTS        wait for `min_complete` completions, and post what the kernel holds back
        SQ_WAKEUP        wake the SQ thread
        SQ_WAIT          wait until the SQ has room; Setup.SQPOLL
        EXT_ARG          the argument is a struct io_uring_getevents_arg: timeout, signal mask, minimum wait;
                         GETEVENTS
        REGISTERED_RING  `fd` is the index of a registered ring
        ABS_TIMER        the timeout is a point on the ring's clock, not a duration; EXT_ARG
        EXT_ARG_REG      the argument is an offset in the region of registered waits; EXT_ARG
        NO_IOWAIT        the thread that waits does not count as waiting for I/O; Feature.NO_IOWAIT
    """,
    abi.Probe: """
        OP_SUPPORTED  the kernel has the operation
    """,
    abi.Query: """
        OPCODES     how many operations and verbs there are, and masks of every flag
        ZCRX        what zero-copy receive can do
        SCQ         the size of the header of the queues
        ZCRX_EVENT  the events of zero-copy receive
    """,
    abi.Rsrc: """
        REGISTER_SPARSE  a table of empty places
    """,
    abi.PbufRing: """
        MMAP  the kernel allocates the ring, to be mapped
        INC   a buffer is used up bit by bit, over several CQEs
    """,
    abi.MemRegionType: """
        TYPE_USER  the memory is the caller's, at `user_addr`; else the kernel allocates it
    """,
    abi.MemRegion: """
        REG_WAIT_ARG  the region holds registered waits; a ring that is still disabled (Setup.R_DISABLED)
    """,
    abi.CloneBuffers: """
        SRC_REGISTERED  `src_fd` is the index of a registered ring
        DST_REPLACE     replace what the table has there already
    """,
    abi.Restriction: """
        REGISTER_OP         allow a register verb
        SQE_OP              allow an operation
        SQE_FLAGS_ALLOWED   the SqeFlag bits that may be set
        SQE_FLAGS_REQUIRED  the SqeFlag bits that must be set
    """,
    abi.IoWq: """
        BOUND    workers for what ends soon: regular files, block devices
        UNBOUND  workers for everything else
    """,
    abi.NapiOp: """
        REGISTER_OP    set how queues are polled
        STATIC_ADD_ID  poll a queue; NapiTracking.STATIC
        STATIC_DEL_ID  stop polling a queue; NapiTracking.STATIC
    """,
    abi.NapiTracking: """
        DYNAMIC   the queues of the sockets in use are found by the kernel
        STATIC    the queues are those that were added
        INACTIVE  none is polled
    """,
    abi.ZcrxArea: """
        DMABUF  the area is that of a DMA buffer, `dmabuf_fd`
    """,
    abi.ZcrxReg: """
        IMPORT  use the queue that another ring exported
        NODEV   without a network card: data is copied
    """,
    abi.ZcrxFeature: """
        RX_PAGE_SIZE  the size of receive buffers can be chosen
        EVENT         events can be reported
    """,
    abi.ZcrxCtrl: """
        FLUSH_RQ   take what the refill queue has
        EXPORT     make an fd by which another ring can use the queue
        ARM_EVENT  report an event once more
        ADD_AREA   add memory
    """,
    abi.ZcrxEvent: """
        ALLOC_FAIL  there was no buffer for a packet
        COPY        a packet had to be copied
    """,
    abi.ZcrxEventDesc: """
        STATS  count what was copied, in memory at `stats_offset`
    """,
    abi.BpfCommand: """
        FILTER  install a filter for an operation
    """,
    abi.BpfFilter: """
        DENY_REST  refuse every operation that has no filter
        SZ_STRICT  refuse a filter made for another size of the operation's own data
    """,
    abi.RegWait: """
        TS  the timeout counts
    """,
}  # fmt: skip


def _meanings(lines: str) -> dict[str, Meaning]:
    found = {}
    for entry in re.split(r"\n(?! )", dedent(lines).strip()):
        name, text = " ".join(entry.split()).split(" ", 1)
        says, _, needs = text.partition("; ")
        found[name] = Meaning(says, needs)
    return found


MEANINGS: Final[Mapping[Enum, Mapping[str, Meaning]]] = MappingProxyType(
    {enum: MappingProxyType(_meanings(lines)) for enum, lines in _LINES.items()}
)
"""By enum and name of the member, in the order of the reference."""

ONLY_FOR: Final[Mapping[Enum, Mapping[str, tuple[Op, ...]]]] = MappingProxyType(
    {
        abi.RecvSend: {
            "RECV_MULTISHOT": (Op.RECV, Op.RECVMSG, Op.RECV_ZC),
            "FIXED_BUF": (Op.SEND_ZC, Op.SENDMSG_ZC),
            "ZC_REPORT_USAGE": (Op.SEND_ZC, Op.SENDMSG_ZC),
            "BUNDLE": (Op.SEND, Op.RECV),
            "VECTORIZED": (Op.SEND, Op.SEND_ZC),
        },
        abi.Poll: {
            "ADD_MULTI": (Op.POLL_ADD, Op.POLL_REMOVE),
            "UPDATE_EVENTS": (Op.POLL_REMOVE,),
            "UPDATE_USER_DATA": (Op.POLL_REMOVE,),
            "ADD_LEVEL": (Op.POLL_ADD,),
        },
        abi.Timeout: {
            "UPDATE": (Op.TIMEOUT_REMOVE,),
            "LINK_UPDATE": (Op.TIMEOUT_REMOVE,),
            "ETIME_SUCCESS": (Op.TIMEOUT, Op.LINK_TIMEOUT),
            "MULTISHOT": (Op.TIMEOUT,),
        },
    }
)
"""The flags of a set that are not for all operations with the set."""
