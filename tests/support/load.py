"""A steady load on the service, by clients who write down what they were told, to be held against what is there.

Each client changes tasks of its own, so that after every answer it knows what they are. It relies on what the service
promises, and on nothing else:

- Answered by 2xx: done, once.
- A 503 that says the connection to the database was lost, or that the database did not answer in time; no answer at
  all: done or not. After every other error, and where no connection could be made: not done.
- A POST with an Idempotency-Key, a change with If-Match, a deletion, and `completed` when it is set rather than
  toggled can be repeated until there is an answer, and are done once. Another change can't.
- A proxy repeats a deletion by itself, where it has lost the instance that it had sent it to. That may have been done,
  and then the answer is a 404.
- What is in doubt may also be done late, when a network lets go of it, and undo what came after, unless it had an
  If-Match or a key: a client changes such a task no more.

What happens to the service meanwhile is left to who starts them: `with writing(writers(8, service.url)): ...`
"""

import random
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

from tests.conftest import SECRET, token, wait_for
from tests.support.ledger import Ledger, State, Task, state_of
from tests.support.live import Answer
from tests.support.tries import DONE_BEFORE, Attempt, Tries, expect

PAUSE_SECONDS = 0.01


class Client:
    """One of the clients: `start`, `end`, `wait`. Then `ledger` has what it knows, `broken` what no promise allows."""

    def __init__(self, url: str, user: str, name: str, attempts: list[Attempt], bearer: str = "") -> None:
        self.name = name
        self.attempts = attempts
        self.ledger = Ledger(user)
        self.broken: list[str] = []
        self._tries = Tries(url, bearer or token(user, SECRET), name, attempts)
        self._texts = (f"{name}-{number}" for number in count(1))
        self._random = random.Random(name)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Make no more requests, but for what has yet to be repeated; `wait` for that."""
        self._ending.set()

    def wait(self, seconds: float) -> None:
        self._thread.join(seconds)
        self.broken += [f"{self.name} hangs"] * self._thread.is_alive()

    def _work(self) -> None:
        operations: list[Callable[[], None]] = [
            *(self.create, self.create_many, self.repeat, self.read, self.read_all),
            *(self.update, self.update_version, self.toggle, self.complete, self.trash, self.delete),
        ]
        try:
            while not self._ending.wait(PAUSE_SECONDS):
                self._random.choice(operations)()
        except Exception as error:
            self.broken.append(f"{self.name}: {error!r}")
        self._tries.connection.close()

    # What a client does

    def create(self) -> None:
        self._create()

    def repeat(self) -> None:
        """Make a task that repeats, and complete it: its next occurrence is made, once."""
        task = self._create(due_date="2030-01-01", recurrence="daily")
        new = task.state._replace(completed=True)
        self._change(task, new, "PATCH", "/complete", {"completed": True}, changes=2)
        task.repeats = task.left = True

    def create_many(self) -> None:
        operations: list[dict[str, Any]] = [{"op": "create", "task": self._fields()} for _ in range(2)]
        task = self._some_task()
        if task:
            operations.append({"op": "update", "id": task.id, "task": {"description": next(self._texts)}})
        answer = self._post("/api/tasks/batch", {"operations": operations})
        for operation, result in zip(operations, answer.json["results"], strict=True):
            if operation["op"] == "create":
                self.ledger.add(operation["task"], result["task"])
            elif task:
                self.ledger.note(task, task.state._replace(**operation["task"]), result["task"])

    def update(self) -> None:
        if task := self._some_task():
            new = task.state._replace(description=next(self._texts))
            self._try(task, new, "", {"description": new.description})

    def toggle(self) -> None:
        if task := self._some_task():
            self._try(task, task.state._replace(completed=not task.state.completed), "/complete")

    def update_version(self) -> None:
        if task := self._some_task():
            new = task.state._replace(description=next(self._texts))
            self._change(task, new, "PATCH", "", {"description": new.description}, If_Match=f'"{task.version}"')

    def complete(self) -> None:
        if task := self._some_task():
            new = task.state._replace(completed=not task.state.completed)
            self._change(task, new, "PATCH", "/complete", {"completed": new.completed})

    def trash(self) -> None:
        if task := self._some_task():
            self._change(task, task.state._replace(place="trash"), "DELETE", "")

    def delete(self) -> None:
        if task := self._some_task():
            self._change(task, task.state._replace(place="nowhere"), "DELETE", "?permanent=true")

    def read(self) -> None:
        if task := self._some_task():
            answer, _ = self._tries.once("GET", f"/api/tasks/{task.id}")
            known = task.state, task.version
            expect(not answer or known == (state_of(answer.json), answer.json["version"]), f"{task} reads {answer}")

    def read_all(self) -> None:
        answer, _ = self._tries.once("GET", "/api/tasks?limit=20")
        expect(not answer or {task["user_id"] for task in answer.json} <= {self.ledger.user}, "somebody else's task")

    # How it does it

    def _fields(self) -> dict[str, Any]:
        text = next(self._texts)
        return {"title": text, "description": text}

    def _some_task(self) -> Task | None:
        at_hand = [task for task in self.ledger.tasks[-20:] if task.state.place == "list" and not task.left]
        return self._random.choice(at_hand) if at_hand else None

    def _create(self, **more: str) -> Task:
        fields = self._fields() | more
        return self.ledger.add(fields, self._post("/api/tasks", fields).json)

    def _post(self, path: str, body: Any) -> Answer:
        answer, _ = self._tries.insist("POST", path, body, Idempotency_Key=secrets.token_hex(8))
        expect(answer.status not in DONE_BEFORE, f"{path}: {answer}")
        self.ledger.unseen += "Idempotency-Replayed" in answer.headers
        self.ledger.acknowledged += 1
        return answer

    def _try(self, task: Task, new: State, suffix: str, body: Any = None) -> None:
        """Make a change that is not safe to repeat."""
        answer, in_doubt = self._tries.once("PATCH", f"/api/tasks/{task.id}{suffix}", body)
        if in_doubt:
            task.other, task.left = new, True
        elif answer:
            self.ledger.acknowledged += 1
            self.ledger.note(task, new, answer.json)

    def _change(
        self, task: Task, new: State, method: str, suffix: str, body: Any = None, changes: int = 1, **condition: str
    ) -> None:
        """Make a change that can be repeated until there is an answer."""
        path = f"/api/tasks/{task.id}"
        answer, in_doubt = self._tries.insist(method, path + suffix, body, **condition)
        task.left |= in_doubt > 0 and not condition
        self.ledger.repeated += in_doubt
        self.ledger.unseen += answer.status in DONE_BEFORE
        self.ledger.acknowledged += 1
        if answer.status == 412:
            answer, _ = self._tries.insist("GET", path)
        if answer.status == 404:
            task.state, self.ledger.changes = new, self.ledger.changes + changes
        else:
            self.ledger.note(task, new, answer.json, changes)


def writers(number: int, *urls: str) -> list[Client]:
    """New clients, two of each user; the addresses are given to them in turn."""
    users = [f"user-{secrets.token_hex(4)}" for _ in range(number // 2)]
    attempts: list[Attempt] = []
    return [Client(urls[n % len(urls)], users[n // 2], f"{users[n // 2]}-{n}", attempts) for n in range(number)]


@contextmanager
def writing(clients: Sequence[Client]) -> Iterator[None]:
    """They are at work meanwhile, and each has been before."""
    for client in clients:
        client.start()
    try:
        wait_for_more(clients)
        yield
    finally:
        for client in clients:
            client.end()
        for client in clients:
            client.wait(30)
        # Whatever else is wrong: a client that has met what no promise allows asks no more.
        assert [line for client in clients for line in client.broken] == []


def wait_for_more(clients: Sequence[Client]) -> None:
    """Return when each of them has made some changes more."""
    then = [client.ledger.acknowledged + 5 for client in clients]
    wait_for(
        lambda: all(client.ledger.acknowledged >= number for client, number in zip(clients, then, strict=True)),
        "somebody does not get on",
        60,
    )
