"""The tasks blueprint: one task and the list of them, under /api/tasks and /api/{user_id}/tasks.

A view reads top-down as the pipeline: route, bearer token, arguments, response, then the few lines it does. Statements
are left to `queries.py` and `commands.py`, shapes to `schemas/tasks.py`.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from flask import Response, request

from ..db.models import MAX_ITEMS
from ..db.session import Session
from ..errors import NO_ITEM, NotFound
from ..http.authentication import bearer
from ..http.conditions import NO_HEADERS, answer, if_match, if_none_match, known, not_modified
from ..http.idempotency import idempotent
from ..schemas.checklist import ChecklistItemUpdate
from ..schemas.dialect import shapes
from ..schemas.fields import canonical_id
from ..schemas.parameters import DeleteQuery, ListQuery, SweepQuery, TimeZoneQuery
from ..schemas.tasks import Completion, Deleted, Move, Task, TaskCreate, TaskUpdate
from ..tasks import commands, paging, queries
from ..tasks.listing import Listing, wanted
from ..tasks.paging import Place
from ..tasks.queries import Page, TaskRow
from .blueprint import Blueprint, path

NUMBER = re.compile("[0-9]{1,2}")
# The header that names parameters which nobody knows; how many at most, and as how many characters.
IGNORED, MOST_IGNORED, LONGEST_IGNORED = "Ignored-Parameters", 10, 50

blueprint = Blueprint("tasks", description="A user's tasks. Every request sees and changes only those of its token.")


@blueprint.get("/tasks")
@bearer
@blueprint.arguments(ListQuery(), location="query")
@blueprint.response(200, Task(many=True), headers=blueprint.headers("ETag", "Link", IGNORED))
def list_tasks(session: Session, query: dict[str, Any]) -> Response:
    """List tasks

    A bare array, newest first. When there is more, the `Link` header names the next page. A list is cheap to poll: with
    `If-None-Match` it is answered by 304 as long as nothing of the user's has changed.
    """
    listing, values = wanted(query, datetime.now(UTC))
    after: Place | int = query["offset"]
    if "cursor" in query:
        after = paging.decode(listing.name(session.owner, values), listing.kind, query["cursor"])
    page = queries.list_tasks(session, listing, values, query["limit"], after, [] if listing.timed else if_none_match())
    if page.rows is None:
        return not_modified(str(page.etag))
    headers = next_page(paging.encode(listing.name(session.owner, values), page.last)) if page.last else {}
    headers |= {} if page.total is None else {"X-Total-Count": str(page.total)}
    headers |= {IGNORED: names(query["ignored"])} if query["ignored"] else {}
    body = shapes().many(page.rows, lambda: total(session, listing, values, page, after))
    return answer(body, None if listing.timed else page.etag, headers=headers)


@blueprint.post("/tasks")
@bearer
@idempotent
@blueprint.arguments(TaskCreate())
@blueprint.response(201, Task, headers=blueprint.headers("ETag", "Location"))
def create_task(session: Session, fields: dict[str, Any]) -> Response:
    """Create a task

    Only the title is needed. A client that makes tasks offline may give them their `id`; one that is taken, be it by a
    task that was deleted for good, is answered by 409, so that nothing is made twice, or comes back.
    """
    row = commands.create_task(session, fields)
    return one(row, 201, {"Location": f"{path().rstrip('/')}/{row.id}"})


@blueprint.delete("/tasks")
@bearer
@blueprint.arguments(SweepQuery(), location="query")
@blueprint.response(200, Deleted)
def delete_tasks(session: Session, query: dict[str, Any]) -> Response:
    """Move many tasks to the trash

    All of them, or those that are completed. `If-Match` takes the ETag of a list.
    """
    return answer({"deleted": commands.sweep_tasks(session, query["status"] == "completed", if_match())})


@blueprint.get("/tasks/<task:id>")
@bearer
@blueprint.response(200, Task, headers=blueprint.headers("ETag"))
def get_task(session: Session, id: str) -> Response:
    """Read a task

    One that is in the trash isn't found; the list shows those, with `deleted=true`.
    """
    row = queries.get_task(session, task_id(id))
    return not_modified(row.etag) if known(row.etag) else one(row)


@blueprint.route("/tasks/<task:id>", methods=["PUT", "PATCH"])
@bearer
@blueprint.arguments(TimeZoneQuery(), location="query")
@blueprint.arguments(TaskUpdate())
@blueprint.response(200, Task, headers=blueprint.headers("ETag"))
def update_task(session: Session, query: dict[str, Any], fields: dict[str, Any], id: str) -> Response:
    """Change a task

    PUT and PATCH do the same: fields that are left out stay, an explicit `null` empties a field.
    """
    return one(commands.update_task(session, task_id(id), fields, if_match(), query["tz"]))


@blueprint.delete("/tasks/<task:id>")
@bearer
@blueprint.arguments(DeleteQuery(), location="query")
@blueprint.response(200, Task, headers=blueprint.headers("ETag"))
def delete_task(session: Session, query: dict[str, Any], id: str) -> Response:
    """Move a task to the trash

    From there it can be restored for 30 days. With `permanent=true` it is deleted for good.
    """
    delete = commands.delete_task if query["permanent"] else commands.trash_task
    return one(delete(session, task_id(id), if_match()))


@blueprint.post("/tasks/<task:id>/restore")
@bearer
@idempotent
@blueprint.response(200, Task, headers=blueprint.headers("ETag"))
def restore_task(session: Session, id: str) -> Response:
    """Restore a task from the trash

    A task that is not in the trash stays as it is.
    """
    return one(commands.restore_task(session, task_id(id), if_match()))


@blueprint.post("/tasks/<task:id>/move")
@bearer
@idempotent
@blueprint.arguments(Move())
@blueprint.response(200, Task, headers=blueprint.headers("ETag"))
def move_task(session: Session, fields: dict[str, Any], id: str) -> Response:
    """Move a task in the manual order

    Right behind the task that `after` names, or before the one that `before` names; null stands for the end, or the
    start. The task gets a `position` between its neighbours. Where there is no room left, they get others too.
    """
    [(side, anchor)] = fields.items()
    return one(commands.move_task(session, task_id(id), side == "after", anchor, if_match()))


@blueprint.patch("/tasks/<task:id>/complete")
@bearer
@idempotent
@blueprint.arguments(TimeZoneQuery(), location="query")
@blueprint.arguments(Completion(), required=False)
@blueprint.response(200, Task, headers=blueprint.headers("ETag"))
def complete_task(session: Session, query: dict[str, Any], fields: dict[str, Any], id: str) -> Response:
    """Complete a task, or open it again

    Without a body the task is toggled; with `completed` it is set, which is safe to repeat. A task that repeats stays
    completed, and its next occurrence is made; opening it again removes that one, unless it has been changed.
    """
    return one(commands.complete_task(session, task_id(id), fields.get("completed"), if_match(), query["tz"]))


@blueprint.patch("/tasks/<task:id>/checklist/<n>")
@bearer
@blueprint.arguments(ChecklistItemUpdate())
@blueprint.response(200, Task, headers=blueprint.headers("ETag"))
def update_item(session: Session, fields: dict[str, Any], id: str, n: str) -> Response:
    """Change an item of a task's checklist

    To add items, take some away or order them anew, set the task's `checklist` as a whole.
    """
    return one(commands.update_item(session, task_id(id), item_number(n), fields, if_match()))


def one(row: TaskRow, status: int = 200, headers: Mapping[str, str] = NO_HEADERS) -> Response:
    """A task and its tag."""
    return answer(shapes().one(row), row.etag, status, headers)


def task_id(text: str) -> str:
    """The id in an address. Raises NotFound for what can't be one."""
    try:
        return canonical_id(text)
    except ValueError:
        raise NotFound("There is no task with this id.") from None


def item_number(text: str) -> int:
    """An item's number in an address. Raises NotFound for what can't be one."""
    if not NUMBER.fullmatch(text) or int(text) >= MAX_ITEMS:
        raise NotFound(NO_ITEM)
    return int(text)


def names(ignored: list[str]) -> str:
    """Names that a client made up, as a header may have them: few and short ones, of ASCII."""
    encoded = [quote(name, safe="[]", errors="replace") for name in ignored[:MOST_IGNORED]]
    listed = [name if len(name) <= LONGEST_IGNORED else f"{name[:LONGEST_IGNORED]}..." for name in encoded]
    return ", ".join([*listed, "..."] if len(ignored) > MOST_IGNORED else listed)


def next_page(cursor: str) -> dict[str, str]:
    """The Link header (RFC 8288) to the page that starts at `cursor`, all else as in this request."""
    # Nothing of a cursor has to be encoded.
    query = f"{other_parameters(request.query_string)}cursor={cursor}"
    return {"Link": f'<{request.scheme}://{request.host}{path()}?{query}>; rel="next"'}


def total(session: Session, listing: Listing, values: dict[str, Any], page: Page, after: Place | int) -> int | None:
    """How many there are on all pages; a page that is the whole list need not be asked about."""
    if page.total is None and (page.last or after):
        return queries.list_tasks(session, replace(listing, count=True), values, 1, 0, []).total
    return len(page.rows or ()) if page.total is None else page.total


@lru_cache(maxsize=1024)
def other_parameters(query: bytes) -> str:
    """`query` without a cursor, for another one to be put behind it; whatever it was, this is an address again."""
    others = [(name, value) for name, value in parse_qsl(query.decode("latin-1"), True) if name != "cursor"]
    return urlencode(others) + "&" if others else ""
