"""What each mode of the ring server asks of the kernel, for the server itself and for programs that never serve.

Imports nothing. A name is that of a row of `python -m rawuring --run`: an operation or a feature in capitals, a
behaviour in small letters.
"""

AUTO = ("multishot", "recv-send")
"""The modes to choose from when none is asked for, best first."""

_SERVER = ("ACCEPT", "ASYNC_CANCEL", "CLOSE", "RECV")  # RECV of signals
_MULTISHOT = (*_SERVER, "accept_multishot", "provided_buffer_ring", "recv_multishot", "SEND", "SENDMSG")

MODES: dict[str, tuple[str, ...]] = {
    "readv-writev": (*_SERVER, "READV", "WRITEV"),
    "recvmsg-sendmsg": (*_SERVER, "RECVMSG", "SENDMSG"),
    "read-write": (*_SERVER, "READ", "WRITE"),
    "recv-send": (*_SERVER, "SEND"),
    "poll-readv-writev": (*_SERVER, "POLL_ADD", "READV", "WRITEV"),
    "poll-recvmsg-sendmsg": (*_SERVER, "POLL_ADD", "RECVMSG", "SENDMSG"),
    "poll-read-write": (*_SERVER, "POLL_ADD", "READ", "WRITE"),
    "poll-recv-send": (*_SERVER, "POLL_ADD", "SEND"),
    "read-fixed-write-fixed": (*_SERVER, "READ_FIXED", "WRITE_FIXED"),
    "poll-read-fixed-write-fixed": (*_SERVER, "POLL_ADD", "READ_FIXED", "WRITE_FIXED"),
    "link-poll-recv-send": (*_SERVER, "POLL_ADD", "SEND"),
    "provided-buffers": (*_SERVER, "POLL_ADD", "PROVIDE_BUFFERS", "SEND", "SENDMSG"),
    "multishot": _MULTISHOT,
    "bundle": (*_MULTISHOT, "RECVSEND_BUNDLE", "recv_bundle"),
    "zero-copy": (*_MULTISHOT, "SEND_ZC", "SENDMSG_ZC"),
}
