"""Export and import: all of a user's tasks out into a file, and back in from one.

An export is of one moment: all of it is read in one transaction, page by page, as fast as the database gives it, and
written to a temporary file, of which no more than a MiB is in memory. Then the connection is given back, and the file
is sent, however slowly the client reads. What files look like is left to the formats, what is stored of them to
`formats/entries.py`.
"""

import functools
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from tempfile import SpooledTemporaryFile
from typing import IO, Any
from zoneinfo import ZoneInfo

from flask import Response, request
from werkzeug.wsgi import FileWrapper

from ..db.session import Session
from ..errors import Unavailable, UnsupportedMedia
from ..formats import csv, entries, json
from ..http.authentication import bearer
from ..http.conditions import answer
from ..http.idempotency import P, View, idempotent
from ..http.parsing import strict
from ..schemas.dialect import shapes
from ..schemas.parameters import TimeZoneQuery
from ..schemas.tasks import task_out
from ..schemas.transfer import ExportFile, ExportQuery, Imported, ImportFile
from ..tasks.imports import add_tasks
from ..tasks.queries import TaskRow, all_tasks
from .blueprint import Blueprint

MAX_FILE = 16 * 1024 * 1024
# So many bytes of an export are kept in memory until it is sent. The rest is on the disk, for as many as there are
# threads at once: 25 MB for 100,000 tasks with 100 characters each, 300 MB with a page of text.
IN_MEMORY = 1024 * 1024
# Its module is loaded with the first such file: the library behind it is large.
CALENDAR = "text/calendar"
VTODO = (
    "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//todo_service//tasks//EN\r\n"
    "BEGIN:VTODO\r\nUID:1@example.com\r\nSUMMARY:Buy milk\r\nEND:VTODO\r\nEND:VCALENDAR\r\n"
)
TYPES = {
    "json": json.MEDIA_TYPE,
    "csv": f"{csv.MEDIA_TYPE}; charset=utf-8",
    "ics": f"{CALENDAR}; charset=utf-8",
}
# With a `contentMediaType`, Swagger UI lets people choose a file to send instead of a text to write.
CSV = {"schema": {"type": "string", "contentMediaType": csv.MEDIA_TYPE, "example": csv.EXAMPLE}}
ICS = {"schema": {"type": "string", "contentMediaType": CALENDAR, "example": VTODO}}
FILES = {
    json.MEDIA_TYPE: {
        "schema": {"allOf": [ImportFile], "contentMediaType": json.MEDIA_TYPE},
    },
    csv.MEDIA_TYPE: CSV,
    CALENDAR: ICS,
}

blueprint = Blueprint("transfer", description="All of a user's tasks as a file: out, and in again.")


def files_welcome(view: View[P]) -> View[P]:
    """Let a body be as large as a file may be; it has to be said before anybody reads the body."""

    @functools.wraps(view)
    def welcoming(session: Session, /, *args: P.args, **kwargs: P.kwargs) -> Response:
        request.max_content_length = MAX_FILE
        return view(session, *args, **kwargs)

    return welcoming


@blueprint.get("/tasks/export")
@bearer
@blueprint.arguments(ExportQuery(), location="query")
@blueprint.response(200, ExportFile, headers=blueprint.headers("Content-Disposition"))
@blueprint.doc(responses={200: {"content": {csv.MEDIA_TYPE: CSV, CALENDAR: ICS}}})
def export_tasks(session: Session, query: dict[str, Any]) -> Response:
    """Export all tasks

    As JSON, with all there is to them, the trash too; as CSV for spreadsheets; or as iCalendar for other programs. Any
    of them can be imported again. Whatever changes meanwhile, all of it is of the moment when it was asked for.
    """
    form, now = query["format"], datetime.now(UTC)
    file = put_aside(session, form, now, shapes().out() if form == "json" else task_out)
    headers = {
        "Content-Disposition": f'attachment; filename="tasks-{now.date()}.{form}"',
        "Content-Length": str(file.seek(0, os.SEEK_END)),
    }
    file.seek(0)
    return Response(FileWrapper(file), content_type=TYPES[form], headers=headers, direct_passthrough=True)


@blueprint.post("/tasks/import")
@bearer
@files_welcome
@idempotent
@blueprint.arguments(TimeZoneQuery(), location="query")
@blueprint.response(200, Imported)
@blueprint.doc(requestBody={"required": True, "content": FILES})
def import_tasks(session: Session, query: dict[str, Any]) -> Response:
    """Import tasks

    From a file of up to 16 MiB in one of the forms of an export, made here or by another program; the content type says
    which, and `{"tasks": [{"title": "Buy milk"}]}` is enough as JSON. All of it is taken in, or none where an error
    says what is wrong in which line. A task that is there already, by its id, is left as it is, so a file can be
    imported twice. Up to 100,000 tasks, with up to a million fields in all. `tz` is the time zone of times that have
    none (iCalendar).
    """
    shape = shapes().schema(entries.WHOLE) if request.mimetype == json.MEDIA_TYPE else entries.PLAIN
    rows = entries.rows(session.owner, entries_of(session.owner, query["tz"]), datetime.now(UTC), strict(), shape)
    created = add_tasks(session, rows)
    return answer({"created": created, "skipped": len(rows) - created})


def put_aside(session: Session, form: str, now: datetime, out: Callable[[TaskRow], dict[str, Any]]) -> IO[bytes]:
    """The file with the owner's tasks as they all are at one moment, each as `out` makes it. Raises Unavailable."""
    file = SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - closed with the answer
    try:
        with session.transaction(snapshot=True):
            pages = all_tasks(session, trash=form == "json")
            for piece in written(form, ([exported(row, out) for row in page] for page in pages), now):
                file.write(piece)
    except OSError as error:
        file.close()
        reason = f"there is no room for an export in the folder for temporary files: {error}."
        raise Unavailable("There is no room to put the export together; please try again later.", reason) from None
    except BaseException:
        file.close()
        raise
    return file


def exported(row: TaskRow, out: Callable[[TaskRow], dict[str, Any]]) -> dict[str, Any]:
    return out(row) | {"series": row.series, "occurrence": row.occurrence}


def written(form: str, tasks: Iterator[list[dict[str, Any]]], now: datetime) -> Iterator[bytes]:
    match form:
        case "csv":
            return csv.write(tasks)
        case "ics":
            from ..formats import ics

            return ics.write(tasks, now)
        case _:
            return json.write(tasks)


def entries_of(owner: str, zone: ZoneInfo) -> Iterator[tuple[str, Any]]:
    """What the request's body has, by its content type. Raises UnsupportedMedia, Invalid."""
    if request.mimetype not in FILES:
        raise UnsupportedMedia(f"The body must be a file, sent with its Content-Type: one of {', '.join(FILES)}.")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMedia("The body must not be compressed.")
    text = entries.text_of(request.get_data())
    match request.mimetype:
        case csv.MEDIA_TYPE:
            return csv.read(text)
        case media_type if media_type == CALENDAR:
            from ..formats import ics

            return ics.read(text, zone, functools.partial(entries.identity, owner))
        case _:
            return json.read(text, shapes().dialect.many or "tasks")
