"""What an app's dialect makes of its schemas and of its answers. With a blank one, all of it is the contract's own."""

import re
from collections.abc import Callable, Iterable
from typing import Any

import marshmallow as ma
from flask import Flask, Response, current_app, request
from marshmallow import fields
from werkzeug.exceptions import HTTPException

from ..config import SettingsError
from ..db.models import PRIORITIES
from ..dialect import Dialect
from ..errors import Invalid, Problem, render
from ..tasks.queries import TaskRow
from .parameters import ListQuery
from .spoken import derived
from .tasks import ProblemDetails, Task, task_out

# Of a task in a file, beside those of a task in an answer.
IN_FILES = {"series", "occurrence"}


class Shapes:
    """The schemas of an app, and its answers. `address`: where the tasks are, for the request that is under way.

    Raises SettingsError for names that can't be given.
    """

    def __init__(self, dialect: Dialect, address: Callable[[], str]) -> None:
        self.dialect, self.blank, self._address = dialect, dialect == Dialect(), address
        self._classes: dict[type[ma.Schema], type[ma.Schema]] = {}
        self._instances: dict[ma.Schema, ma.Schema] = {}
        self._wrappers: dict[str, type[ma.Schema]] = {}
        self._write = task_out if self.blank else writer(dialect)
        check(dialect)

    def out(self) -> Callable[[TaskRow], dict[str, Any]]:
        """What makes a task of a row."""
        write, name = self._write, self.dialect.url
        if name is None:
            return write
        start = f"{self._address()}/"

        def addressed(row: TaskRow) -> dict[str, Any]:
            task = write(row)
            task[name] = start + task["id"]
            return task

        return addressed

    def one(self, row: TaskRow) -> dict[str, Any]:
        """The answer that is a task."""
        task = self.out()(row)
        return {self.dialect.one: task} if self.dialect.one else task

    def many(self, rows: Iterable[TaskRow], total: Callable[[], int | None]) -> Any:
        """The answer that is a list; `total` tells how many there are on all pages, if anybody wants to know."""
        out = self.out()
        tasks = [out(row) for row in rows]
        return {self.dialect.many: tasks, "total": total()} if self.dialect.many else tasks

    def counts(self, stats: dict[str, Any]) -> dict[str, Any]:
        """The answer that has the user's counts."""
        if self.dialect.priority:
            numbers = stats["by_priority"]
            stats["by_priority"] = {
                word: numbers[name] for name, word in zip(PRIORITIES, self.dialect.priority, strict=True)
            }
        return stats

    def schema(self, schema: ma.Schema) -> ma.Schema:
        """The same in the dialect; one object for each."""
        if self.blank:
            return schema
        if schema not in self._instances:
            self._instances[schema] = self._class(type(schema))()
        return self._instances[schema]

    def documented(self, value: Any) -> Any:
        """What is documented of a view, with the dialect's schemas. A task that stands there by itself is an answer."""
        if isinstance(value, dict):
            return {name: self.documented(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [self.documented(inner) for inner in value]
        if isinstance(value, type) and issubclass(value, ma.Schema):
            return self._class(value)
        if isinstance(value, ma.Schema):
            made = self._class(type(value))
            return self._wrapped(made, value.many) if type(value) is Task else made(many=value.many)
        return value

    def example(self, value: Any) -> Any:
        """An example of a body, in the dialect."""
        if isinstance(value, list):
            return [self.example(inner) for inner in value]
        if not isinstance(value, dict):
            return value
        found = {name: self.example(inner) for name, inner in value.items()}
        if self.dialect.priority and "priority" in found:
            found["priority"] = self.dialect.priority[PRIORITIES.index(found["priority"])]
        if self.dialect.tags and "tags" in found:
            found["tags"] = self.dialect.tags.join(found["tags"])
        return found

    def _wrapped(self, task: type[ma.Schema], many: bool) -> ma.Schema:
        name = self.dialect.many if many else self.dialect.one
        if name is None:
            return task(many=many)
        inside: dict[str, Any] = {name: fields.Nested(task, many=many, required=True)}
        if many:
            told = {"description": "How many there are, on all pages.", "example": 1}
            inside["total"] = fields.Integer(required=True, metadata=told)
        title = "TaskList" if many else "TaskAnswer"
        self._wrappers.setdefault(title, type(title, (ma.Schema,), inside))
        return self._wrappers[title]()

    def _class(self, shape: type[ma.Schema]) -> type[ma.Schema]:
        if shape not in self._classes:
            self._classes[shape] = shape if self.blank else derived(self.dialect, shape, self._class)
        return self._classes[shape]


def register(app: Flask, dialect: Dialect, address: Callable[[], str]) -> None:
    """Give `app` its shapes. Raises SettingsError."""
    app.extensions["shapes"] = Shapes(dialect, address)
    if not dialect.names:
        return
    word = re.compile(rf"\b({'|'.join(name for name, _ in dialect.names)})\b")

    def rename(problem: Invalid) -> Response:
        """What the schemas refuse is by the client's names already; the rest is, where it sent the other names."""
        try:
            body = request.get_data(as_text=True)
        except (Problem, HTTPException):
            # Too large or cut short, which nobody has found yet, as something before it was refused.
            body = ""
        theirs = {name: new for name, new in dialect.names if f'"{name}"' not in body}
        problem.detail, *texts = (
            word.sub(lambda match: theirs.get(match[0], match[0]), text)
            for text in (problem.detail, *(text for error in problem.errors for text in error.values()))
        )
        pairs = zip(texts[::2], texts[1::2], strict=True)
        problem.errors = [{"field": field, "message": message} for field, message in pairs]
        return render(problem)

    app.register_error_handler(Invalid, rename)


def shapes() -> Shapes:
    """Those of the app that answers."""
    found: Shapes = current_app.extensions["shapes"]
    return found


def writer(dialect: Dialect) -> Callable[[TaskRow], dict[str, Any]]:
    """`task_out` in the dialect, but for the address. It runs for each task of a list, so all is made ready before."""
    priorities = dict(zip(PRIORITIES, dialect.priority, strict=False))
    separator, names, done, words = dialect.tags, dialect.names, dialect.done, dialect.words or (False, True)

    def write(row: TaskRow) -> dict[str, Any]:
        task = task_out(row)
        if priorities:
            task["priority"] = priorities[task["priority"]]
        if separator:
            task["tags"] = separator.join(task["tags"]) or None
        for name, new in names:
            task[new] = task[name]
        if done:
            task[done] = words[task["completed"]]
        return task

    return write


def check(dialect: Dialect) -> None:
    """Raise SettingsError for names that can't be given."""
    own, parameters = Task().fields.keys(), ListQuery().fields.keys() | ListQuery.aliases.keys()
    taken = own | IN_FILES
    problems = {
        "names: there is no such field": any(name not in own for name, _ in dialect.names),
        "names: `completed` gets its other name by done": any(name == "completed" for name, _ in dialect.names),
        "names: there is a field of that name": any(new in taken for _, new in dialect.names),
        "done: there is a field or a parameter of that name": dialect.done in taken | (parameters - {"status"}),
        "done: `status` takes two words": dialect.done == "status" and not dialect.words,
        "url: there is a field of that name": dialect.url in taken,
        "error: there is a member of that name": dialect.error in ProblemDetails().fields,
    }
    for problem, there in problems.items():
        if there:
            raise SettingsError({"API_DIALECT": f"{problem}."})
