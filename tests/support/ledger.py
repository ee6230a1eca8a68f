"""What clients were told of their tasks, and whether that is what the database holds: `Ledger`, and `audit`."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.conftest import run_sql
from tests.support.tries import expect

TASKS = """
    SELECT title, id::text, description, completed, deleted_at IS NOT NULL FROM tasks WHERE user_id = ANY(%(users)s)
"""
REVISIONS = "SELECT user_id, revision FROM owners WHERE user_id = ANY(%(users)s)"


class State(NamedTuple):
    """`place`: list, trash or nowhere."""

    description: str | None
    completed: bool
    place: str = "list"


@dataclass
class Task:
    """A task as its client knows it. `other` is what it may be as well, after a change that is in doubt.

    `left`: the client changes it no more. `repeats`: it has been completed, and has a next occurrence.
    """

    id: str
    title: str
    version: int
    state: State
    other: State | None = None
    left: bool = False
    repeats: bool = False


class Ledger:
    """One client's: no other client changes these tasks, and no two have the same title.

    `changes`: by how much the user's revision has grown, as far as the client was told. `unseen`: how many requests
    were done though no answer to them came. `repeated`: how often a change was asked for again while in doubt. Two that
    a network lets go of at once may both find something to do; the one that waits for the other then changes nothing,
    but has counted already.
    """

    def __init__(self, user: str) -> None:
        self.user = user
        self.tasks: list[Task] = []
        self.acknowledged = self.changes = self.unseen = self.repeated = 0

    def add(self, fields: dict[str, Any], body: Any) -> Task:
        """A task was made of `fields`, the answer says."""
        task = Task(body["id"], fields["title"], 0, State(fields["description"], False))
        self.tasks.append(task)
        self.note(task, task.state, body)
        return task

    def note(self, task: Task, new: State, body: Any, changes: int = 1) -> None:
        """`task` is as it was to become, the answer says."""
        task.state, task.version = new, body["version"]
        self.changes += changes
        told = state_of(body)
        # The answer to a deletion is the same wherever the task has gone.
        same = told[:2] == new[:2] and (told.place == "list") == (new.place == "list")
        expect(same, f"{task} was answered with {body}")


def state_of(body: Any) -> State:
    return State(body["description"], body["completed"], "trash" if body["deleted_at"] else "list")


class Findings(NamedTuple):
    """A line for each thing that should be there and isn't, and for each that is there and shouldn't be."""

    lost: list[str]
    duplicated: list[str]


def audit(url: str, ledgers: Iterable[Ledger]) -> Findings:
    """Compare all tasks, and how often each user's have changed: nothing was done twice unseen, either.

    `ledgers` are all those of their users.
    """
    findings, changes, spare = Findings([], []), Counter[str](), Counter[str]()
    users = {"users": sorted({ledger.user for ledger in ledgers})}
    rows: defaultdict[str, dict[str, State]] = defaultdict(dict)
    for title, id, description, completed, trashed in run_sql(url, TASKS, users):
        rows[title][id] = State(description, completed, "trash" if trashed else "list")
    for ledger in ledgers:
        more = sum(_compare(task, rows.pop(task.title, {}), findings) for task in ledger.tasks)
        changes[ledger.user] += ledger.changes + more
        spare[ledger.user] += ledger.repeated
    findings.duplicated.extend(f"{title} is there, and was not acknowledged" for title in rows)
    revisions: dict[str, Any] = dict(run_sql(url, REVISIONS, users))
    for user in users["users"]:
        more = revisions.get(user, 0) - changes[user]
        line = f"{user} has changed {revisions.get(user, 0)} times, and was told of {changes[user]}"
        findings.duplicated.extend([line] * (more - spare[user]))
        findings.lost.extend([line] * -more)
    return findings


def _compare(task: Task, rows: dict[str, State], findings: Findings) -> int:
    """How often the task was changed beyond what its client was told: once if it is what it may be as well."""
    found = rows.pop(task.id, task.state._replace(place="nowhere"))
    next_one = task.state._replace(completed=False)
    if found not in (task.state, task.other) or list(rows.values()) < [next_one] * task.repeats:
        findings.lost.append(f"{task} is {found}, with {rows}")
    elif list(rows.values()) != [next_one] * task.repeats:
        findings.duplicated.append(f"{task} is also there as {rows}")
    return int(found == task.other)
