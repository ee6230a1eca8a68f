"""Two users do whatever can be done, in any order, and each sees exactly their own tasks: what a model says they are.

The model is two dicts for each user, of live tasks and of the trash, in the form in which the service answers them.
What the service decides itself (times, versions, a place at the end) is taken from its answers, and has to stay what it
is until the next change. Tasks that repeat are left to `test_recurring.py`. `make fuzz` tries many more sequences.
"""

import logging
import uuid
from collections import Counter
from datetime import datetime
from typing import Any, ClassVar, NamedTuple
from urllib.parse import urlencode

import pytest
from flask import Flask
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test

from tests.conftest import FUZZ, User, assert_problem, revision, user_of

Fields = dict[str, Any]
Tasks = dict[str, Fields]

BUDGET = settings(
    max_examples=200 if FUZZ else 20,
    stateful_step_count=40 if FUZZ else 30,
    # The same sequences in each run but those of `make fuzz`, which also takes the time to find a short one that fails.
    derandomize=not FUZZ,
    phases=[Phase.generate, *([Phase.shrink] if FUZZ else [])],
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
# What a new task has, and one with an explicit null.
DEFAULTS: Fields = {"description": None, "priority": "medium", "due_date": None, "tags": [], "completed": False}
# What the service sets with each change.
STAMPS = ("version", "updated_at", "completed_at", "deleted_at")

titles = st.text(alphabet="abc%_ ", min_size=1, max_size=6).filter(str.strip)
choices: dict[str, st.SearchStrategy[Any]] = {
    "description": st.none() | titles,
    "priority": st.sampled_from([None, "low", "medium", "high"]),
    "due_date": st.sampled_from([None, "2026-12-31", "2026-12-31T17:00:00Z"]),
    "tags": st.none() | st.lists(st.sampled_from(["home", "shop", "work"]), unique=True),
    "position": st.none() | st.integers(-9, 9),
    "completed": st.booleans(),
}
new = st.fixed_dictionaries({"title": titles}, optional=choices)
changes = st.fixed_dictionaries({}, optional={"title": titles} | choices)
who = st.sampled_from([0, 1])
stale = st.sampled_from([False, False, False, True])


class Step(NamedTuple):
    """One operation on a task; `stale`: on condition that it has a version which it hasn't."""

    kind: str
    id: str
    fields: Fields
    stale: bool

    def in_batch(self) -> Fields:
        """As an operation of a batch."""
        match self.kind:
            case "create":
                return {"op": "create", "task": self.fields}
            case "update":
                operation: Fields = {"op": "update", "task": self.fields}
            case "complete" | "toggle":
                operation = {"op": "complete"} | self.fields
            case _:
                operation = {"op": "delete", "permanent": self.kind == "purge"}
        return operation | {"id": self.id} | ({"version": 0} if self.stale else {})


creations = st.builds(Step, st.just("create"), st.just(""), new, st.just(False))


def steps(ids: st.SearchStrategy[str], *more: str) -> st.SearchStrategy[Step]:
    """Steps on tasks that are there already."""
    kinds = st.sampled_from(["toggle", "trash", "purge", *more])
    return (
        st.builds(Step, kinds, ids, st.just({}), stale)
        | st.builds(Step, st.just("update"), ids, changes, stale)
        | st.builds(Step, st.just("complete"), ids, st.fixed_dictionaries({"completed": st.booleans()}), stale)
    )


class Account:
    """A user, and what they must see; `copy` is what a client has that follows their changes."""

    def __init__(self, user: User) -> None:
        self.user = user
        self.live: Tasks = {}
        self.trash: Tasks = {}
        self.seen: tuple[Tasks, Tasks] = {}, {}
        self.revision = 0
        self.posts: list[tuple[str, Fields, str]] = []
        self.copy: Tasks = {}
        self.since: Fields = {}

    @property
    def all(self) -> Tasks:
        return self.live | self.trash

    def post(self, path: str, body: Any) -> Any:
        """POST with a key of its own; what succeeded can be tried again."""
        options = {"json": body, "headers": {"Idempotency-Key": str(uuid.uuid4())}}
        response = self.user.post(path, **options)
        if response.status_code < 300:
            self.posts.append((path, options, response.text))
        return response

    def refusal(self, step: Step, other: "Account") -> int | None:
        """The status of the error that the step must give."""
        if step.id not in self.all:
            return 403 if step.id in other.all else 404
        if step.stale:
            return 412
        return None if step.id in self.live or step.kind in ("purge", "restore") else 404

    def take(self, step: Step) -> Fields:
        """Do the step to the model: the task, as far as it is known beforehand."""
        task = self.all[step.id]
        match step.kind:
            case "update" if step.fields:
                task = loose(task) | meant(step.fields)
                if step.fields.get("position", 0) is None:
                    del task["position"]
            case "complete" if step.fields["completed"] is not task["completed"]:
                task = loose(task) | step.fields
            case "toggle":
                task = loose(task) | {"completed": not task["completed"]}
            case "trash" | "purge":
                task = loose(task)
            case "restore" if step.id in self.trash:
                task = loose(task)
        self.live.pop(step.id, None)
        self.trash.pop(step.id, None)
        if step.kind != "purge":
            (self.trash if step.kind == "trash" else self.live)[step.id] = task
        return task

    def answered(self, task: Fields, expected: Fields) -> None:
        """The answer is as expected; a list has to show the same."""
        others = {other.get("position") for id, other in self.all.items() if id != task["id"]}
        if expected.get("position") in others:
            # Next to the one that is there; or there, if that one has gone.
            expected = {name: value for name, value in expected.items() if name != "position"}
        assert task == task | expected
        for place in (self.live, self.trash):
            if task["id"] in place:
                place[task["id"]] = task

    def see(self) -> None:
        """The service shows what the model says. What the model couldn't know, it takes note of."""
        unchanged, before = self.seen == (self.live, self.trash), self.revision
        for query, known in (("", self.live), ("?deleted=true", self.trash)):
            response = self.user.get(f"/api/tasks{query}")
            self.revision = revision(response)
            assert (self.revision == before) if unchanged else (self.revision > before)
            shown = {task["id"]: task for task in response.json}
            assert shown == {id: shown.get(id, {}) | task for id, task in known.items()}
            for id, task in shown.items():
                assert task["user_id"] == self.user.id
                assert (task["completed_at"] is not None) is task["completed"]
                assert (task["deleted_at"] is not None) is (known is self.trash)
                assert task == self.seen_before(id) or before < task["version"] <= self.revision
            known.update(shown)
        self.seen = dict(self.live), dict(self.trash)

    def follow(self, limit: int) -> bool:
        """Read one page of the changes. Whether there are more; if not, nothing is missing."""
        page = self.user.get("/api/tasks/changes", query_string=self.since | {"limit": limit}).json
        for change in page["changes"]:
            if change["purged"]:
                self.copy.pop(change["id"], None)
            else:
                self.copy[change["id"]] = change["task"]
        self.since = {"since": page["next"]}
        assert page["has_more"] or self.copy == self.all
        return bool(page["has_more"])

    def catch_up(self) -> None:
        for _ in range(1000):
            if not self.follow(3):
                return
        raise AssertionError("the feed has no end")

    def seen_before(self, id: str) -> Fields | None:
        return (self.seen[0] | self.seen[1]).get(id)


def loose(task: Fields) -> Fields:
    """A task without what the service sets anew with each change."""
    return {name: value for name, value in task.items() if name not in STAMPS}


def key(value: Any) -> Any:
    """What a list is sorted by: no text with a title's letters is a time."""
    return datetime.fromisoformat(value) if str(value).endswith("Z") else value


def meant(fields: Fields) -> Fields:
    """What a task has when it is given `fields`; a place that is null is for the service to choose."""
    given = {name: DEFAULTS.get(name) if value is None else value for name, value in fields.items()}
    if "title" in fields:
        given["title"] = fields["title"].strip()
    return {name: value for name, value in given.items() if value is not None or name != "position"}


class TwoUsers(RuleBasedStateMachine):
    app: ClassVar[Flask]
    ids: Bundle[str] = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.accounts = [Account(user_of(self.app, name)) for name in ("alice", "bob")]

    def pair(self, who: int) -> tuple[Account, Account]:
        return self.accounts[who], self.accounts[1 - who]

    @rule(target=ids, who=who, fields=new)
    def create(self, who: int, fields: Fields) -> str:
        account = self.accounts[who]
        response = account.post("/api/tasks", fields)
        assert response.status_code == 201
        task: Any = response.json
        account.live[task["id"]] = task
        account.answered(task, DEFAULTS | meant(fields))
        return str(task["id"])

    @rule(who=who, step=steps(ids, "get", "restore", "restore"), method=st.sampled_from(["PATCH", "PUT"]))
    def change(self, who: int, step: Step, method: str) -> None:
        """Whosever task it is, wherever it is."""
        account, other = self.pair(who)
        method, suffix, body = {
            "get": ("GET", "", None),
            "update": (method, "", step.fields),
            "complete": ("PATCH", "/complete", step.fields),
            "toggle": ("PATCH", "/complete", None),
            "trash": ("DELETE", "", None),
            "purge": ("DELETE", "?permanent=true", None),
            "restore": ("POST", "/restore", None),
        }[step.kind]
        step = step._replace(stale=step.stale and step.kind != "get")
        headers = {"If-Match": '"0"'} if step.stale else {}
        response = account.user.request(method, f"/api/tasks/{step.id}{suffix}", json=body, headers=headers)
        if status := account.refusal(step, other):
            assert_problem(response, status)
        else:
            assert response.status_code == 200, response.text
            account.answered(response.json, account.take(step))

    @rule(
        target=ids,
        who=who,
        batch=st.lists(creations | steps(ids), min_size=1, max_size=6),
        mode=st.sampled_from(["one", "own", "any"]),
    )
    def batch(self, who: int, batch: list[Step], mode: str) -> Any:
        """All of it, or the first error and nothing. With the user's own tasks, it mostly succeeds."""
        account, other = self.pair(who)
        if mode == "one":
            batch = batch[:1]
        if mode == "own" and account.live:
            own = list(account.live)
            batch = [step._replace(id=own[number % len(own)], stale=False) for number, step in enumerate(batch)]
        before, expected = (dict(account.live), dict(account.trash)), []
        response = account.post("/api/tasks/batch", {"operations": [step.in_batch() for step in batch]})
        for number, step in enumerate(batch):
            if step.kind == "create":
                expected.append(DEFAULTS | meant(step.fields))
            elif status := account.refusal(step, other):
                account.live, account.trash = before
                assert assert_problem(response, status)["errors"][0]["field"] == f"operations.{number}"
                return multiple()
            else:
                expected.append(account.take(step))
        assert response.status_code == 200, response.text
        results = [result["task"] for result in response.json["results"]]
        created = {task["id"]: task for step, task in zip(batch, results, strict=True) if step.kind == "create"}
        account.live |= created
        for task, known in zip(results, expected, strict=True):
            account.answered(task, known)
        return multiple(*created)

    @rule(who=who, status=st.sampled_from(["completed", "completed", "all"]))
    def sweep(self, who: int, status: str) -> None:
        account = self.accounts[who]
        swept = {id: loose(task) for id, task in account.live.items() if task["completed"] or status == "all"}
        assert account.user.delete(f"/api/tasks?status={status}").json == {"deleted": len(swept)}
        account.live = {id: task for id, task in account.live.items() if id not in swept}
        account.trash |= swept

    @rule(
        target=ids,
        who=who,
        entries=st.lists(
            st.tuples(ids | st.uuids(version=4).map(str), new), min_size=1, max_size=4, unique_by=lambda entry: entry[0]
        ),
    )
    def import_file(self, who: int, entries: list[tuple[str, Fields]]) -> Any:
        """Tasks that are the user's already, in the trash or not, stay as they are; another's id is as good as any."""
        account = self.accounts[who]
        fresh = {id: DEFAULTS | meant(fields) | {"id": id} for id, fields in entries if id not in account.all}
        response = account.post("/api/tasks/import", {"tasks": [fields | {"id": id} for id, fields in entries]})
        assert response.json == {"created": len(fresh), "skipped": len(entries) - len(fresh)}
        account.live |= fresh
        return multiple(*fresh)

    @rule(who=who)
    def export_to_the_other(self, who: int) -> None:
        """An export has everything; to the other user it brings what they haven't got, in the trash or not."""
        account, other = self.pair(who)
        response = account.user.get("/api/tasks/export")
        in_no_answer = {"series": None, "occurrence": None}
        assert response.json["tasks"] == [task | in_no_answer for _, task in sorted(account.all.items())]
        theirs = other.all
        for mine, place in ((account.live, other.live), (account.trash, other.trash)):
            fresh = {id: task | {"user_id": other.user.id} for id, task in mine.items() if id not in theirs}
            place |= {
                id: {name: value for name, value in task.items() if name != "version"} for id, task in fresh.items()
            }
        created = len(other.all) - len(theirs)
        answer = other.user.post("/api/tasks/import", data=response.data, content_type="application/json").json
        assert answer == {"created": created, "skipped": len(account.all) - created}

    @rule(who=who, number=st.integers(0, 99), same=st.booleans())
    def repeat(self, who: int, number: int, same: bool) -> None:
        """A POST that succeeded, again with its key: the same answer, and nothing is done."""
        account = self.accounts[who]
        if not account.posts:
            return
        path, options, answer = account.posts[number % len(account.posts)]
        if same:
            response = account.user.post(path, **options)
            assert (response.text, response.headers["Idempotency-Replayed"]) == (answer, "true")
        else:
            assert_problem(account.user.post(path, **options | {"json": {"title": "Another"}}), 422)

    @rule(
        who=who,
        filters=st.fixed_dictionaries(
            {"sort": st.sampled_from(["title", "position", "created_at"]), "order": st.sampled_from(["asc", "desc"])},
            optional={
                "status": st.sampled_from(["pending", "completed"]),
                "priority": st.sampled_from(["low", "medium", "high"]),
                "tag": st.sampled_from(["home", "shop", "work"]),
                "search": st.sampled_from(["a", "B", "%", "ab"]),
                "deleted": st.just("true"),
            },
        ),
        limit=st.integers(1, 5),
    )
    def pages_of_a_list(self, who: int, filters: dict[str, str], limit: int) -> None:
        account = self.accounts[who]
        wanted = [
            task
            for task in (account.trash if "deleted" in filters else account.live).values()
            if "status" not in filters or task["completed"] is (filters["status"] == "completed")
            if filters.get("priority", task["priority"]) == task["priority"]
            if "tag" not in filters or filters["tag"] in task["tags"]
            if filters.get("search", "").lower() in f"{task['title']}\n{task['description']}"
        ]
        wanted.sort(key=lambda task: (key(task[filters["sort"]]), task["id"]), reverse=filters["order"] == "desc")
        query: Any = filters | {"limit": limit, "count": "true"}
        url, found = f"/api/tasks?{urlencode(query)}", []
        while url:
            response = account.user.get(url)
            assert response.headers["X-Total-Count"] == str(len(wanted))
            found += response.json
            url = response.headers.get("Link", "")[1:].partition(">")[0]
        assert found == wanted

    @rule(who=who)
    def counts(self, who: int) -> None:
        account = self.accounts[who]
        stats, tasks = account.user.get("/api/tasks/stats").json, account.live.values()
        priorities = Counter(task["priority"] for task in tasks)
        assert stats["total"] == len(tasks) == stats["completed"] + stats["pending"]
        assert stats["completed"] == sum(task["completed"] for task in tasks)
        assert stats["by_priority"] == {name: priorities[name] for name in ("low", "medium", "high")}
        assert stats["by_tag"] == Counter(tag for task in tasks for tag in task["tags"])

    @rule(who=who, limit=st.integers(1, 5))
    def follow(self, who: int, limit: int) -> None:
        """One page of the feed; between it and the next, other things happen."""
        self.accounts[who].follow(limit)

    @invariant()
    def each_sees_their_own(self) -> None:
        for account in self.accounts:
            account.see()

    def teardown(self) -> None:
        """Those who follow catch up, and so does one who begins now."""
        for account in self.accounts:
            account.catch_up()
            account.copy, account.since = {}, {}
            account.catch_up()


def test_each_user_sees_their_own_tasks(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    TwoUsers.app = app
    run_state_machine_as_test(TwoUsers, settings=BUDGET)
