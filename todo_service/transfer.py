"""Export and import: all of a user's tasks out into a file, and back in from one.

An export is of one moment: all of it is read in one transaction, page by page, as fast as the database gives it, and
put aside in a file without a name, of which no more than a MiB is in memory. Then the connection is given back, and the
answer is made of that file, a page at a time, however slowly the client reads. What the files of clients look like is
left to the formats, what is stored of them to `portable.py`.
"""

import functools
import logging
import pickle
from collections.abc import Awaitable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import chain
from tempfile import SpooledTemporaryFile
from typing import IO, Any
from zoneinfo import ZoneInfo

from flask import Response, request
from sqlalchemy import Uuid, bindparam, or_, select

from . import formats_csv, formats_json, portable
from .auth import bearer
from .blueprint import Blueprint
from .db import database
from .errors import Unavailable, UnsupportedMedia
from .etags import answer
from .idempotency import P, View, idempotent
from .imports import add_tasks
from .models import tasks
from .parameters import TimeZoneQuery
from .parsing import strict
from .queries import LIVE, MINE, TASK
from .schemas import task_out
from .statements import Query

log = logging.getLogger(__name__)

MAX_FILE = 16 * 1024 * 1024
PAGE = 1000
# So many bytes of an export are kept in memory until it is sent. The rest is on the disk, for as many as there are
# threads and slow readers at once: 25 MB for 100,000 tasks with 100 characters each, 300 MB with a page of text.
IN_MEMORY = 1024 * 1024
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
WHOLE = (*TASK, tasks.c.series, tasks.c.occurrence)
PAGE_OF_ALL = Query(select(*WHOLE).where(MINE, BEHIND).order_by(TASK[0]).limit(PAGE))
PAGE_OF_LIVE = Query(select(*WHOLE).where(MINE, LIVE, BEHIND).order_by(TASK[0]).limit(PAGE))

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
    of them can be imported again. Whatever changes meanwhile, all of it is of the moment when it was asked for.
    """
    form, now = query["format"], datetime.now(UTC)
    found = pages(put_aside(owner, PAGE_OF_ALL if form == "json" else PAGE_OF_LIVE))
    # Begun, so that the file is closed whatever becomes of the answer.
    found = chain([next(found, [])], found)
    name = f'attachment; filename="tasks-{now.date()}.{form}"'
    return Response(written(form, found, now), content_type=TYPES[form], headers={"Content-Disposition": name})


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
    twice. Up to 100,000 tasks, with up to a million fields in all. `tz` is the time zone of times that have none
    (iCalendar).
    """
    shape = portable.WHOLE if request.mimetype == formats_json.MEDIA_TYPE else portable.PLAIN
    rows = portable.rows(owner, entries(owner, query["tz"]), datetime.now(UTC), strict(), shape)
    created = add_tasks(owner, rows)
    return answer({"created": created, "skipped": len(rows) - created})


def put_aside(owner: str, query: Query) -> IO[bytes]:
    """The owner's tasks by id, as they all are at one moment: rows of WHOLE. Raises Unavailable."""
    db = database()

    def read() -> IO[bytes]:
        file = SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - closed with the answer
        try:
            after = None
            while rows := db.read(owner, query, after=after):
                pickle.dump(rows, file)
                after = rows[-1][0]
                if len(rows) < PAGE:
                    break
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file

    try:
        return db.read_at_once(read)
    except OSError as error:
        log.error("no room for an export in the folder for temporary files: %s", error)
        raise Unavailable("There is no room to put the export together; please try again later.") from None


def pages(file: IO[bytes]) -> Iterator[list[dict[str, Any]]]:
    """What was put aside. Read while the answer is sent, when for Flask the request is over already."""
    with file, suppress(EOFError):
        while True:
            rows = pickle.load(file)  # noqa: S301 - our own, and nobody else can open it
            yield [task_out(row) | {"series": row[-2], "occurrence": row[-1]} for row in rows]


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
