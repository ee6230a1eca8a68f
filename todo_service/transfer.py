"""Export and import: all of a user's tasks out into a file, and back in from one.

An export is read in pages and written as it is read, so it takes the same little memory whatever there is; between the
pages no connection is held, however slowly the client reads. So it is no snapshot: a task that is changed meanwhile is
in it as its page found it. What the files look like is left to the formats, what is stored of them to `portable.py`.
"""

import functools
from collections.abc import Awaitable, Iterator
from datetime import UTC, datetime
from itertools import chain
from typing import Any
from zoneinfo import ZoneInfo

from flask import Response, request
from sqlalchemy import Uuid, bindparam, or_, select

from . import formats_csv, formats_json, portable
from .auth import bearer
from .blueprint import Blueprint
from .db import Database, database
from .errors import UnsupportedMedia
from .etags import answer
from .idempotency import P, View, idempotent
from .imports import add_tasks
from .parameters import TimeZoneQuery
from .parsing import strict
from .queries import LIVE, MINE, TASK
from .schemas import task_out
from .statements import Query

MAX_FILE = 16 * 1024 * 1024
PAGE = 1000
# Its module is loaded with the first such file: the library behind it is large.
CALENDAR = "text/calendar"
VTODO = (
    "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//todo_service//tasks//EN\r\n"
    "BEGIN:VTODO\r\nUID:1@example.com\r\nSUMMARY:Buy milk\r\nEND:VTODO\r\nEND:VCALENDAR\r\n"
)
TYPES = {
    "json": formats_json.MEDIA_TYPE,
    "csv": f"{formats_csv.MEDIA_TYPE}; charset=utf-8",
    "ics": f"{CALENDAR}; charset=utf-8",
}
# With a `contentMediaType`, Swagger UI lets people choose a file to send instead of a text to write.
CSV = {"schema": {"type": "string", "contentMediaType": formats_csv.MEDIA_TYPE, "example": formats_csv.EXAMPLE}}
ICS = {"schema": {"type": "string", "contentMediaType": CALENDAR, "example": VTODO}}
FILES = {
    formats_json.MEDIA_TYPE: {
        "schema": {"allOf": [portable.ImportFile], "contentMediaType": formats_json.MEDIA_TYPE},
    },
    formats_csv.MEDIA_TYPE: CSV,
    CALENDAR: ICS,
}

AFTER = bindparam("after", type_=Uuid(as_uuid=False))
BEHIND = or_(AFTER.is_(None), TASK[0] > AFTER)
PAGE_OF_ALL = Query(select(*TASK).where(MINE, BEHIND).order_by(TASK[0]).limit(PAGE))
PAGE_OF_LIVE = Query(select(*TASK).where(MINE, LIVE, BEHIND).order_by(TASK[0]).limit(PAGE))

blueprint = Blueprint("transfer", description="All of a user's tasks as a file: out, and in again.")


def files_welcome(view: View[P]) -> View[P]:
    """Let a body be as large as a file may be; it has to be said before anybody reads the body."""

    @functools.wraps(view)
    def welcoming(owner: str, /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[Response]:
        request.max_content_length = MAX_FILE
        return view(owner, *args, **kwargs)

    return welcoming


@blueprint.get("/tasks/export")
@bearer
@blueprint.arguments(portable.ExportQuery(), location="query")
@blueprint.response(200, portable.ExportFile, headers=blueprint.headers("Content-Disposition"))
@blueprint.doc(responses={200: {"content": {formats_csv.MEDIA_TYPE: CSV, CALENDAR: ICS}}})
def export_tasks(owner: str, query: dict[str, Any]) -> Response:
    """Export all tasks

    As JSON, with all there is to them, the trash too; as CSV for spreadsheets; or as iCalendar for other programs. Any
    of them can be imported again.
    """
    form, now = query["format"], datetime.now(UTC)
    tasks = pages(database(), owner, PAGE_OF_ALL if form == "json" else PAGE_OF_LIVE)
    # The first page before the answer begins: after that, an error could only cut it short.
    tasks = chain([next(tasks, [])], tasks)
    name = f'attachment; filename="tasks-{now.date()}.{form}"'
    return Response(written(form, tasks, now), content_type=TYPES[form], headers={"Content-Disposition": name})


@blueprint.post("/tasks/import")
@bearer
@files_welcome
@idempotent
@blueprint.arguments(TimeZoneQuery(), location="query")
@blueprint.response(200, portable.Imported)
@blueprint.doc(requestBody={"required": True, "content": FILES})
async def import_tasks(owner: str, query: dict[str, Any]) -> Response:
    """Import tasks

    From a file of up to 16 MiB in one of the forms of an export, made here or by another program; the content type says
    which, and `{"tasks": [{"title": "Buy milk"}]}` is enough as JSON. All of it is taken, or none where an error says
    what is wrong in which line. A task that is there already, by its id, is left as it is, so a file can be imported
    twice. `tz` is the time zone of times that have none (iCalendar).
    """
    rows = portable.rows(owner, entries(owner, query["tz"]), datetime.now(UTC), strict())
    created = add_tasks(owner, rows)
    return answer({"created": created, "skipped": len(rows) - created})


def pages(db: Database, owner: str, query: Query) -> Iterator[list[dict[str, Any]]]:
    """The owner's tasks by id. Read while the answer is sent, when for Flask the request is over already."""
    after = None
    while rows := db.read(owner, query, after=after):
        yield [task_out(row) for row in rows]
        after = rows[-1][0]
        if len(rows) < PAGE:
            return


def written(form: str, tasks: Iterator[list[dict[str, Any]]], now: datetime) -> Iterator[bytes]:
    match form:
        case "csv":
            return formats_csv.write(tasks)
        case "ics":
            from . import formats_ics

            return formats_ics.write(tasks, now)
        case _:
            return formats_json.write(tasks)


def entries(owner: str, zone: ZoneInfo) -> Iterator[tuple[str, Any]]:
    """What the request's body has, by its content type. Raises UnsupportedMedia, Invalid."""
    if request.mimetype not in FILES:
        raise UnsupportedMedia(f"The body must be a file, sent with its Content-Type: one of {', '.join(FILES)}.")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMedia("The body must not be compressed.")
    text = portable.text_of(request.get_data())
    match request.mimetype:
        case formats_csv.MEDIA_TYPE:
            return formats_csv.read(text)
        case media_type if media_type == CALENDAR:
            from . import formats_ics

            return formats_ics.read(text, zone, functools.partial(portable.identity, owner))
        case _:
            return formats_json.read(text)
