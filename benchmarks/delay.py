"""A network that is far: passes TCP on to a server, what goes there some milliseconds later.

    python -m benchmarks.delay HOST PORT SECONDS      # prints the port of 127.0.0.1 that it listens on

HOST may be the folder of a Unix socket, as libpq has it. A process of its own that looks into nothing, so that it takes
little time itself; tests that want to know what goes over the wire have `tests/support/wire.py`.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Optional, cast

from todo_service.config import ROOT


class Side(asyncio.Protocol):
    """One side of a connection; what it says goes to the `other`, `delay` seconds later."""

    def __init__(self, delay: float, other: Optional["Side"] = None, target: tuple[str, int] = ("", 0)) -> None:
        self.delay, self.other, self._target = delay, other, target
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self.other is None:
            self.transport.pause_reading()
            self._connecting = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        host, port = self._target
        try:
            if host.startswith("/"):
                path = f"{host}/.s.PGSQL.{port}"
                _, self.other = await self._loop.create_unix_connection(lambda: Side(0, self), path)
            else:
                _, self.other = await self._loop.create_connection(lambda: Side(0, self), host, port)
            self.transport.resume_reading()
        except OSError:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        assert self.other
        if self.delay:
            self._loop.call_later(self.delay, self.other.transport.write, data)
        else:
            self.other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other:
            self._loop.call_later(self.delay, self.other.transport.close)


@contextmanager
def delayed(target: dict[str, Any], seconds: float) -> Iterator[int]:
    """The port where the server of the DSN parameters `target` is that much farther away."""
    address = [target.get("hostaddr") or target["host"], str(target.get("port", 5432)), str(seconds)]
    command = [sys.executable, "-m", "benchmarks.delay", *address]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            assert process.stdout
            yield int(process.stdout.readline())
        finally:
            process.terminate()


async def main(host: str, port: int, delay: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Side(delay, target=(host, port)), "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
