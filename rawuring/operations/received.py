"""The result of a recvmsg as a value.

May import everything below ring, and `messages`, which loads it when a message is asked for.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .messages import MSG_CTRUNC, MSG_TRUNC, AncillaryData, fds_in


class Message(NamedTuple):
    """What recvmsg brought, in the shape of socket.recvmsg and with the address last."""

    nbytes: int
    ancdata: list[AncillaryData]
    msg_flags: int
    address: Any

    @property
    def fds(self) -> list[int]:
        """The fds in the control data, which are yours to close."""
        return fds_in(self.ancdata)

    @property
    def is_truncated(self) -> bool:
        """Was the message longer than the buffers? The rest of it is lost."""
        return bool(self.msg_flags & MSG_TRUNC)

    @property
    def is_control_truncated(self) -> bool:
        """Was there more control data than room for it? The kernel closed the fds that were left over."""
        return bool(self.msg_flags & MSG_CTRUNC)
