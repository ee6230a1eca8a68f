"""What the service tells its operator: one line a request, as text or as JSON, with an id that the client sees too.

Never in a line: tokens, bodies, query strings, settings. Paths are written percent-encoded, so nobody can forge a line.
"""

import logging
import re
import sys
import time
from urllib.parse import quote

import orjson
from flask import Flask, Response, request
from uuid_utils import uuid7

from ..config import Settings
from .current import current_g, current_request

log = logging.getLogger("todo_service.requests")

LINE = "%s %s %s %sms user=%s id=%s"
FIELDS = ("method", "path", "status", "ms", "user", "request_id")
# Of requests that are part of a trace: the trace, and who in it sent the request.
TRACE = ("trace_id", "parent_id")
# As W3C's Trace Context has it: there is no version ff; a later one than 00 may have more behind the flags.
TRACEPARENT = re.compile(
    r"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?", flags=re.ASCII
)
REQUEST_ID = re.compile(r"[\w.:-]{1,128}", flags=re.ASCII)


class JsonLine(logging.Formatter):
    """A log record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in FIELDS + TRACE if hasattr(record, name)}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def configure(settings: Settings) -> None:
    """Send this process's log to standard error in the configured form, times in UTC."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%SZ")
    handler.setFormatter(JsonLine() if settings.log_format == "json" else text)
    handler.formatter.converter = time.gmtime  # type: ignore[union-attr]
    logger = logging.getLogger("todo_service")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(settings.log_level)


def register(app: Flask) -> None:
    """Give every request an id and log its end."""
    app.before_request(begin)
    app.after_request(end)


def begin() -> None:
    """Take the client's X-Request-ID where it is harmless, so that its log and ours can be put side by side."""
    known = current_g()
    known.began = time.perf_counter()
    given = request.environ.get("HTTP_X_REQUEST_ID")
    known.request_id = given if given and REQUEST_ID.fullmatch(given) else str(uuid7())


def end(response: Response) -> Response:
    asked, known = current_request(), current_g()
    response.headers.add("X-Request-ID", known.request_id)
    if log.isEnabledFor(logging.INFO):
        ms = round((time.perf_counter() - known.began) * 1000, 1)
        line = Line(asked.method, quote(asked.path), response.status_code, ms, known.get("owner"), known.request_id)
        if "HTTP_TRACEPARENT" in asked.environ:
            line.trace(asked.environ["HTTP_TRACEPARENT"])
        log.handle(line)
    return response


RECORD = vars(logging.makeLogRecord({"name": log.name, "levelno": logging.INFO, "levelname": "INFO"}))


class Line(logging.LogRecord):
    """The record of a request; where in the code it is made, and in which thread, is not found out each time."""

    def __init__(self, *values: object) -> None:
        self.__dict__.update(RECORD)
        self.created = time.time()
        self.msecs = self.created % 1 * 1000
        line = LINE % values
        self.msg = line if line.isprintable() else LINE % tuple(map(printable, values))
        self.__dict__.update(zip(FIELDS, values, strict=True))

    def trace(self, traceparent: str) -> None:
        """Say which trace the request is part of; a header that is malformed counts as none."""
        if found := TRACEPARENT.fullmatch(traceparent):
            self.__dict__.update(zip(TRACE, found.groups(), strict=True))
            self.msg += f" trace={found[1]} parent={found[2]}"


def printable(value: object) -> object:
    return value.encode("unicode_escape").decode() if isinstance(value, str) and not value.isprintable() else value
