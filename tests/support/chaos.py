"""Faults under load: nothing that was acknowledged is lost, nothing is done twice, the service recovers by itself.

The service as it is shipped, with two workers, in front of PgBouncer and PostgreSQL, and a proxy for the network in
between. For each fault there are fresh users and a load (`load.py`), which goes on while the fault happens and until
all is well again; then what the clients were told is held against the database (`ledger.py`). A promise broken, in what
is stored, in the kinds of errors, or in the time until they end, is an exit code of 1:

    python -m tests.support.chaos

Losing power is left to PostgreSQL, which runs without fsync here.
"""

import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from secrets import token_hex

from tests.support.faults import Fault, Stage, faults, stage
from tests.support.ledger import audit
from tests.support.load import Client
from tests.support.servers import MissingProgram
from tests.support.tries import Attempt

CLIENTS, USERS = 8, 4
WARM_UP = 1.0
# All is well again when every client had a success, and none has had an error for so long.
QUIET = 1.5
# From the end of the fault to the last error: 10 s to connect, 4 s for an answer, 2 s until one tries again.
RECOVERY = 16


@dataclass
class Outcome:
    """What became of a fault. `away`: the longest time without a success; `back`: from its end to the last error."""

    fault: Fault
    requests: int = 0
    acknowledged: int = 0
    lost: int = 0
    duplicated: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    away: float = 0
    back: float = 0
    broken: list[str] = field(default_factory=list)

    def row(self) -> str:
        errors = ", ".join(f"{kind} ×{number}" for kind, number in sorted(self.errors.items())) or "none"
        numbers = [str(number) for number in (self.requests, self.acknowledged, self.lost, self.duplicated)]
        return row(self.fault.name, *numbers, errors, f"{self.away:.1f}", f"{self.back:.1f}")


def row(*cells: str) -> str:
    widths = (24, 8, 12, 4, 10, 24, 6, 6)
    cells = tuple(
        cell.ljust(width) if at in (0, 5) else cell.rjust(width)
        for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return f"| {' | '.join(cells)} |"


HEAD = row("fault", "requests", "acknowledged", "lost", "duplicated", "errors", "away", "back")


def run(stage: Stage, fault: Fault) -> Outcome:
    stage.service.restart_with(GUNICORN_CMD_ARGS=fault.options)
    attempts: list[Attempt] = []
    users = [f"user-{token_hex(4)}" for _ in range(USERS)]
    clients = [Client(stage.service.url, users[n % USERS], f"{users[n % USERS]}-{n}", attempts) for n in range(CLIENTS)]
    outcome = Outcome(fault)
    for client in clients:
        client.start()
    time.sleep(WARM_UP)
    began = time.monotonic()
    try:
        fault.cause(stage)
    except RuntimeError as error:
        outcome.broken.append(str(error))
    ended = time.monotonic()
    if not settled(attempts, {client.name for client in clients}, ended):
        outcome.broken.append("not back in time")
    for client in clients:
        client.end()
    for client in clients:
        client.wait(60)
        outcome.broken += client.broken
    judge(outcome, attempts, began, ended)
    tally(outcome, clients, stage.url)
    return outcome


def settled(attempts: list[Attempt], names: set[str], ended: float) -> bool:
    """Let the load go on until all is well again; False if that takes too long."""
    while (now := time.monotonic()) < ended + RECOVERY + QUIET:
        so_far = list(attempts)
        quiet = all(attempt.end < now - QUIET for attempt in so_far if attempt.error) and now > ended + QUIET
        if quiet and names == {attempt.name for attempt in so_far if not attempt.error and attempt.end > ended}:
            return True
        time.sleep(0.1)
    return False


def judge(outcome: Outcome, attempts: list[Attempt], began: float, ended: float) -> None:
    outcome.requests = len(attempts)
    outcome.errors = Counter(attempt.error for attempt in attempts if attempt.error)
    outcome.back = max([0, *(attempt.end - ended for attempt in attempts if attempt.error)])
    successes = sorted(attempt.end for attempt in attempts if not attempt.error and attempt.end >= began)
    outcome.away = max((after - before for before, after in pairwise([began, *successes])), default=0)
    strange = outcome.errors.keys() - outcome.fault.errors
    outcome.broken += [f"{outcome.errors[kind]} errors of the kind {kind!r}" for kind in strange]


def tally(outcome: Outcome, clients: list[Client], url: str) -> None:
    ledgers = [client.ledger for client in clients]
    lost, duplicated = audit(url, ledgers)
    outcome.acknowledged = sum(ledger.acknowledged for ledger in ledgers)
    outcome.lost, outcome.duplicated = len(lost), len(duplicated)
    unseen = sum(ledger.unseen for ledger in ledgers)
    outcome.broken += [*lost, *duplicated]
    if unseen and outcome.fault.answered:
        outcome.broken.append(f"{unseen} requests were done and not answered")


def main() -> int:
    broken = []
    try:
        with stage() as everything:
            print(HEAD, flush=True)
            for fault in faults():
                outcome = run(everything, fault)
                print(outcome.row(), flush=True)
                broken += [f"{fault.name}: {line}" for line in outcome.broken]
    except MissingProgram as missing:
        print(missing, file=sys.stderr)
        return 1
    print("\n".join(broken) or "Every promise was kept.")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
