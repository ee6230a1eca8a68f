"""A load on the service: connections that are kept, each with its next request as soon as the last is answered.

Each request is of another user, drawn at random, as those are that a proxy passes on.

    python -m benchmarks.client < what.json > measured.json

A process of its own, and one that imports little, so that it takes as little as it can from what it measures. What is
asked: `{"port", "connections", "seconds", "mix": {kind: weight}, "users": [{"token", "ids"}]}`. An answer other than
the kind's own status is an error, and so is a lost connection. What is counted begins when every connection has been
answered once, and a quarter of the time later; from then on each answer counts, however long ago it was asked for.
"""

import asyncio
import json
import math
import random
import re
import sys
import time
from collections import Counter, defaultdict
from itertools import count
from typing import Any, cast

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
STATUS = {"list": 200, "get": 200, "update": 200, "create": 201}


class Load:
    """What all connections share: when they end, and what was measured."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self.kinds, self.weights = list(asked["mix"]), list(asked["mix"].values())
        self._seconds, self._waiting = asked["seconds"], asked["connections"]
        self._began = self.last = time.perf_counter()
        self.counts_from = self.ends = math.inf
        self.all_answered = 0.0
        self.took: dict[str, list[float]] = defaultdict(list)
        self.errors: Counter[str] = Counter()
        self.all = 0

    def note_first(self) -> None:
        """One connection more has been answered for the first time, or never will be."""
        self._waiting -= 1
        if not self._waiting:
            now = time.perf_counter()
            self.all_answered = now - self._began
            self.counts_from = self.last = now + self._seconds / 4
            self.ends = self.counts_from + self._seconds

    def note(self, kind: str, began: float, status: int) -> bool:
        """Note a request that is answered; whether it counts."""
        self.all += 1
        now = time.perf_counter()
        counts = now >= self.counts_from
        if status != STATUS[kind]:
            self.errors[f"{kind} {status}"] += 1
        elif counts:
            self.last = now
            self.took[kind].append((now - began) * 1000)
        return counts

    def measured(self) -> dict[str, Any]:
        together = sorted(took for one in self.took.values() for took in one)
        kinds = {kind: times(sorted(took)) for kind, took in sorted(self.took.items())}
        rate = round(len(together) / max(0.001, self.last - self.counts_from), 1)
        # The machine's processors are the client's, too.
        own = round(time.process_time() * 1000 / max(1, self.all), 3)
        figures = times(together) | {"all_answered": round(self.all_answered, 2), "client_cpu": own, "kinds": kinds}
        return {"all": self.all, "errors": self.errors, "per_second": rate} | figures


def times(took: list[float]) -> dict[str, float]:
    """Milliseconds that half of the requests took, and 99 %."""
    return {f"p{part}": round(took[len(took) * part // 100], 2) if took else 0 for part in (50, 99)}


class Connection(asyncio.Protocol):
    """A connection, which belongs to no user."""

    def __init__(self, load: Load, users: list[dict[str, Any]], number: int) -> None:
        self.ended = asyncio.get_running_loop().create_future()
        self._load, self._users = load, users
        self._random = random.Random(number)  # noqa: S311
        self._titles = (f"Task {number} {title}" for title in count(1))
        self._arrived = bytearray()
        self._needed: int | None = None
        self._answered = self._counted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self._load.errors["connection lost"] += 1
            self._answer_first()
            self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._arrived += data
        if self._needed is None:
            end = self._arrived.find(b"\r\n\r\n")
            if end < 0:
                return
            self._read_head(bytes(self._arrived[:end]), end + 4)
        if self._needed is not None and len(self._arrived) >= self._needed:
            self._answer_first()
            self._counted |= self._load.note(self._kind, self._began, self._status)
            self._ask()

    def _answer_first(self) -> None:
        if not self._answered:
            self._answered = True
            self._load.note_first()

    def _read_head(self, head: bytes, length: int) -> None:
        self._status = int(head[9:12])
        body = LENGTH.search(head)
        self._needed = length + (int(body[1]) if body else 0)

    def _ask(self) -> None:
        self._arrived.clear()
        self._needed = None
        # However slow it is, there is something to tell.
        if self._counted and time.perf_counter() >= self._load.ends:
            self.ended.set_result(None)
            self._transport.close()
            return
        [self._kind] = self._random.choices(self._load.kinds, self._load.weights)
        text = self._request()
        self._began = time.perf_counter()
        self._transport.write(text)

    def _request(self) -> bytes:
        user = self._random.choice(self._users)
        task = "" if self._kind in ("list", "create") else f"/{self._random.choice(user['ids'])}"
        method = {"update": "PATCH", "create": "POST"}.get(self._kind, "GET")
        query = "?limit=20" if self._kind == "list" else ""
        head = f"Host: 127.0.0.1\r\nAuthorization: Bearer {user['token']}\r\n"
        body = json.dumps({"title": next(self._titles)}) if method != "GET" else ""
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        return f"{method} /api/tasks{task}{query} HTTP/1.1\r\n{head}\r\n{body}".encode()


async def main(asked: dict[str, Any]) -> dict[str, Any]:
    load, loop = Load(asked), asyncio.get_running_loop()

    async def one(number: int) -> None:
        def connection() -> Connection:
            return Connection(load, asked["users"], number)

        _, protocol = await loop.create_connection(connection, "127.0.0.1", asked["port"])
        await protocol.ended

    async with asyncio.timeout(asked["seconds"] * 1.25 + 60):
        await asyncio.gather(*map(one, range(asked["connections"])))
    return load.measured()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(json.load(sys.stdin)))))
