"""An echo server on asyncio, to compare with: asyncio_server.py PORT [--uvloop] [--streams].

By default the fastest plain form, a Protocol that writes what it is given; with --streams the form
that most programs have. Both loops set TCP_NODELAY themselves. Imports the standard library, and
uvloop when asked to.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from typing import cast


class Echo(asyncio.Protocol):
    """Sends every chunk back as it comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.write = cast(asyncio.WriteTransport, transport).write

    def data_received(self, data: bytes) -> None:
        self.write(data)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def serve(port: int, streams: bool) -> None:
    if streams:
        server = await asyncio.start_server(echo, "127.0.0.1", port, backlog=4096)
    else:
        server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description="An echo server on asyncio.")
    parser.add_argument("port", type=int)
    parser.add_argument("--uvloop", action="store_true")
    parser.add_argument("--streams", action="store_true")
    options = parser.parse_args()
    loop: asyncio.AbstractEventLoop
    if options.uvloop:
        import uvloop

        loop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    with contextlib.suppress(KeyboardInterrupt):
        loop.run_until_complete(serve(options.port, options.streams))


if __name__ == "__main__":
    main()
