"""A user with many clients that never rest: each sends a request as soon as the one before has its answer.

A process of its own, so that what it measures with others isn't its own work: `python -m tests.support.crowd` reads a
job as JSON, {"port", "requests", "clients", "seconds"}, and says how many answers there were of each kind, such as
{"429 too-many-at-once 1": 17}: the status, a problem's code, Retry-After. UNIQUE in a request is new each time.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

UNIQUE = "{unique}"
PATIENCE = 40
_numbers = count(1)


class Crowd:
    """One that is at work; `answers` are there afterwards."""

    answers: dict[str, int]

    def __init__(self) -> None:
        self.answers = {}


@contextmanager
def crowd(port: int, requests: list[bytes], seconds: float, clients: int = 100) -> Iterator[Crowd]:
    """Have `clients` send these requests, one after the other and in turns, while the block goes on."""
    texts = [message.decode("latin-1") for message in requests]
    job = json.dumps({"port": port, "requests": texts, "clients": clients, "seconds": seconds})
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.crowd"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(job)
        process.stdin.close()
        made = Crowd()
        try:
            assert process.stdout.readline() == "started\n"
            yield made
            made.answers = json.loads(process.stdout.read())
        finally:
            process.kill()


async def work(port: int, requests: list[str], clients: int, seconds: float) -> Counter[str]:
    seen: Counter[str] = Counter()
    until = time.monotonic() + seconds
    say("started")
    await asyncio.gather(*(client(port, requests, number, until, seen) for number in range(clients)))
    return seen


async def client(port: int, requests: list[str], number: int, until: float, seen: Counter[str]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.monotonic() < until:
        message = requests[number % len(requests)].replace(UNIQUE, f"{next(_numbers)}")
        number += 1
        writer.write(message.encode("latin-1"))
        try:
            seen[await asyncio.wait_for(answer(reader), PATIENCE)] += 1
        except (OSError, EOFError, TimeoutError) as error:
            seen[f"0 {type(error).__name__}"] += 1
            return
    writer.close()


async def answer(reader: asyncio.StreamReader) -> str:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *fields = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    body = await reader.readexactly(int(headers["content-length"]))
    problem = json.loads(body).get("code", "") if "problem" in headers["content-type"] else ""
    return f"{line.split()[1]} {problem} {headers.get('retry-after', '')}".strip()


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    say(json.dumps(asyncio.run(work(**json.load(sys.stdin)))))
