"""Many operations as one: all of them are done, or none is and the error says which one was wrong."""

from typing import Any, ClassVar

import marshmallow as ma
from flask import Response
from marshmallow import fields
from marshmallow.validate import Length, OneOf

from ..db.models import MAX_BATCH
from ..db.session import Session
from ..errors import Conflict, Forbidden, Invalid, NotFound, PreconditionFailed
from ..http.authentication import bearer
from ..http.conditions import answer
from ..http.idempotency import idempotent
from ..schemas.dialect import shapes
from ..schemas.fields import MAX_INTEGER, Inner, StrictBoolean, StrictInteger, TaskId
from ..schemas.parameters import TimeZoneQuery
from ..schemas.tasks import ID, Task, TaskCreate, TaskUpdate, Variant, only
from ..tasks.commands import as_row, placed
from ..tasks.repository import unit_of_work
from ..tasks.unit_of_work import State, UnitOfWork
from .blueprint import Blueprint

blueprint = Blueprint("batch", description="Many operations in one request.")


# The fields that each operation needs, and those that it may have besides.
NEEDED = {"create": {"task"}, "update": {"id", "task"}, "complete": {"id"}, "delete": {"id"}}
OPTIONAL = {
    "create": set[str](),
    "update": {"version"},
    "complete": {"completed", "version"},
    "delete": {"permanent", "version"},
}


def variant(op: str) -> Variant:
    told = {"op": only(op)} | ({"task": {"$ref": "#/components/schemas/TaskCreate"}} if op == "create" else {})
    return Variant({"op"} | NEEDED[op], OPTIONAL[op], told)


class TaskOf(Inner):
    """What `update` takes of a task, or `create`, which wants a title and may be told the id."""

    created = Inner(TaskCreate)

    def _deserialize(self, value: Any, attr: str | None, data: Any, partial: Any = None, **kwargs: Any) -> Any:
        if data.get("op") == "create":
            return self.created._deserialize(value, attr, data, partial, **kwargs)
        return super()._deserialize(value, attr, data, partial, **kwargs)


class Operation(ma.Schema):
    """One thing to do; `op` says what."""

    discriminator = "op"
    variants: ClassVar = {f"{op.title()}Operation": variant(op) for op in NEEDED}

    op = fields.String(required=True, validate=OneOf(list(NEEDED)), metadata={"example": "update"})
    id = TaskId(metadata={"description": "Which task; for all but `create`.", "example": ID})
    task = TaskOf(TaskUpdate, metadata={"description": "The fields to set; for `create` (with a title) and `update`."})
    completed = StrictBoolean(metadata={"description": "For `complete`: set, instead of toggle.", "example": True})
    # By a function: to generators of clients, a field with a default in the document is one that has to be sent.
    permanent = StrictBoolean(
        load_default=lambda: False, metadata={"description": "For `delete`: for good.", "example": False}
    )
    version = StrictInteger(
        metadata={
            "description": "Only if the task still has this version.",
            "minimum": 0,
            "maximum": MAX_INTEGER,
            "example": 17,
        }
    )

    @ma.validates_schema
    def complete(self, data: dict[str, Any], **_: Any) -> None:
        missing = NEEDED[data["op"]] - data.keys()
        if missing:
            raise ma.ValidationError({name: ["Missing data for required field."] for name in sorted(missing)})


class Batch(ma.Schema):
    operations = fields.List(Inner(Operation), required=True, validate=Length(1, MAX_BATCH))

    @ma.pre_load
    def count(self, data: Any, **_: Any) -> Any:
        """Refuse too many operations before each of them is looked at."""
        operations = data.get("operations") if isinstance(data, dict) else None
        if isinstance(operations, list) and len(operations) > MAX_BATCH:
            raise ma.ValidationError(f"Length must be between 1 and {MAX_BATCH}.", "operations")
        return data


class Result(ma.Schema):
    op = fields.String(required=True, validate=OneOf(list(NEEDED)), metadata={"example": "update"})
    task = fields.Nested(Task, required=True, metadata={"description": "The task as this operation left it."})


class BatchResults(ma.Schema):
    results = fields.List(
        fields.Nested(Result), required=True, metadata={"description": "One for each operation, in their order."}
    )


@blueprint.post("/tasks/batch")
@bearer
@idempotent
@blueprint.arguments(TimeZoneQuery(), location="query")
@blueprint.arguments(Batch())
@blueprint.response(200, BatchResults)
def run_batch(session: Session, query: dict[str, Any], body: dict[str, Any]) -> Response:
    """Do many things at once

    Up to 100 operations, in order, in one transaction: all of them, or none. An error names the first that failed, as
    `operations.3` in `errors`.
    """
    operations = body["operations"]
    states: list[State] = []
    try:
        named = [*operations, *(operation.get("task", {}) for operation in operations)]
        ids = [fields["id"] for fields in named if "id" in fields]
        positions = placed(*(operation.get("task", {}) for operation in operations))
        with unit_of_work(session, ids, query["tz"], positions) as unit:
            for operation in operations:
                states.append(perform(unit, operation))  # noqa: PERF401 - in the end its length says which one failed
    except (Conflict, Forbidden, NotFound, PreconditionFailed, Invalid) as problem:
        raise problem.within(f"operations.{len(states)}") from None
    out = shapes().out()
    results = [
        {"op": operation["op"], "task": out(as_row(session.owner, unit, state))}
        for operation, state in zip(operations, states, strict=True)
    ]
    return answer({"results": results})


def perform(unit: UnitOfWork, operation: dict[str, Any]) -> State:
    match operation["op"]:
        case "create":
            return unit.create(operation["task"])
        case "update":
            return unit.update(operation["id"], operation["task"], versions(operation))
        case "complete":
            return unit.complete(operation["id"], operation.get("completed"), versions(operation))
        case _:
            delete = unit.delete if operation["permanent"] else unit.trash
            return delete(operation["id"], versions(operation))


def versions(operation: dict[str, Any]) -> list[str] | None:
    return [str(operation["version"])] if "version" in operation else None
