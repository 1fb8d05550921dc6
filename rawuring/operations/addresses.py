"""Socket addresses: as Python writes them, and as the kernel's struct sockaddr.

May import everything below ring. Host names are not looked up: that would block.
"""

from __future__ import annotations

import os
import struct

from .. import abi
from ..buffers import Pin, pin_readable
from ..errors import BufferUseError
from ..files import FileLike, Fixed
from ..hints import Any

NO_ADDRESS: Pin = (None, 0, 0)


def pin_address(sock: FileLike, address: Any, family: int | None) -> Pin:
    """Pin a Python socket address as a struct sockaddr."""
    return pin_readable(encode_address(family_of(sock, family), address))


def family_of(sock: FileLike, family: int | None) -> int:
    """The address family that was given, or that of a socket object."""
    if family is None:
        family = getattr(sock, "family", None)
    if family is None or isinstance(sock, (int, Fixed)) and family is None:
        raise BufferUseError("the address family of an fd or a Fixed is not known here: pass family=socket.AF_...")
    return int(family)


def encode_address(family: int, address: Any) -> bytes:
    """A Python socket address as a struct sockaddr. Host names are not looked up: that would block."""
    import socket

    if family == socket.AF_UNIX:
        path = os.fsencode(address) if not isinstance(address, (bytes, bytearray)) else bytes(address)
        if len(path) >= 108:
            raise ValueError(f"an AF_UNIX path has at most 107 bytes: {len(path)}")
        # The abstract namespace starts with a zero byte and has no terminator; an empty path is to be picked there.
        return bytes(abi.SOCKADDR_UN.pack(sun_family=family)[:2]) + path + (b"" if path[:1] in (b"\0", b"") else b"\0")
    try:
        if family == socket.AF_INET:
            host, port = address
            return bytes(abi.SOCKADDR_IN.pack(
                sin_family=family, sin_port=port, sin_addr=socket.inet_pton(family, host)))  # fmt: skip
        if family == socket.AF_INET6:
            host, port, flowinfo, scope_id = (*address, 0, 0)[:4]
            return bytes(abi.SOCKADDR_IN6.pack(
                sin6_family=family, sin6_port=port, sin6_flowinfo=flowinfo, sin6_scope_id=scope_id,
                sin6_addr=socket.inet_pton(family, host)))  # fmt: skip
    except OSError:
        kind = "IPv6" if family == socket.AF_INET6 else "IPv4"
        raise ValueError(
            f"{host!r} is not a numeric {kind} address: look names up with socket.getaddrinfo first, since that blocks"
        ) from None
    except (TypeError, ValueError, struct.error):
        raise ValueError(f"{address!r} is no address of this family: use (host, port) as socket.connect does") from None
    raise ValueError(f"addresses of family {family} are not known here: encode the sockaddr and use sq.prep_connect")


def decode_address(name: bytes) -> Any:
    """A struct sockaddr as a Python socket address; None without one; the bytes of an unknown family."""
    import socket

    if len(name) < 2:
        return None
    family = abi.SOCKADDR_STORAGE.get(name.ljust(abi.SOCKADDR_STORAGE.nbytes, b"\0"), "ss_family")
    if family == socket.AF_INET:
        fields = abi.SOCKADDR_IN.unpack(name)
        return socket.inet_ntop(family, fields["sin_addr"]), fields["sin_port"]
    if family == socket.AF_INET6:
        fields = abi.SOCKADDR_IN6.unpack(name)
        host = socket.inet_ntop(family, fields["sin6_addr"])
        return host, fields["sin6_port"], fields["sin6_flowinfo"], fields["sin6_scope_id"]
    if family == socket.AF_UNIX:
        path = name[2:]
        return path if path[:1] == b"\0" else os.fsdecode(path.split(b"\0", 1)[0])
    return name
