"""Every way a request can fail, and the one place where a failure becomes an answer.

    Problem                     any of the below; rendered as RFC 9457 `application/problem+json`
    ├── InvalidRequest      400  not JSON, bad UTF-8, duplicate keys, nested too deep
    ├── Unauthorized        401  no token, or not a valid one
    ├── Forbidden           403  another user's task, another user's path
    │   └── QuotaExceeded        no room for another task
    ├── NotFound            404
    ├── Conflict            409  this Idempotency-Key's first request is still running; or the id is taken
    ├── Gone                410  the sync token is older than the deletions that are still known
    ├── PreconditionFailed  412  If-Match names another version
    ├── UnsupportedMedia    415  not JSON
    ├── Invalid             422  a field or parameter with a bad value; carries `errors`
    ├── TooManyRequests     429  over the rate limit; carries Retry-After
    └── Unavailable         503  what a request needs cannot be had for now; carries Retry-After
        └── DatabaseUnavailable  the database

Modules raise these and know nothing of HTTP responses; HTTPExceptions of Flask and Werkzeug (405, 413, …) leave by the
same door, and so does an exception nobody expected, which is logged and told to the client as a bare 500.
"""

import logging
from collections.abc import Collection, Iterable, Mapping
from http import HTTPStatus
from typing import Any

import orjson
from flask import Flask, Response, current_app, g
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException

log = logging.getLogger(__name__)

PROBLEM_JSON = "application/problem+json"
RETRY_AFTER_SECONDS = 2


class Problem(Exception):
    """A failure with an answer: `detail` is a sentence a person can read, `code` is stable and for programs."""

    status = 500
    code = "internal-error"
    # Which kind of 401 or 429, of few; for who counts them (`http/metrics.py`).
    kind: str | None = None

    def __init__(
        self,
        detail: str,
        *,
        status: int | None = None,
        code: str | None = None,
        errors: Iterable[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status, self.code = status or self.status, code or self.code
        # A field's name is the client's own text, and may hold what UTF-8 can't express.
        self.errors = [{"field": printable(field), "message": message} for field, message in errors]
        self.headers = dict(headers or {})
        self.place: str | None = None

    def within(self, place: str) -> "Problem":
        """The same failure, said to be that of one part of the request."""
        self.place = place
        self.detail = f"{place}: {self.detail}"
        self.errors = [{"field": place, "message": self.detail}]
        return self


class InvalidRequest(Problem):
    status, code = 400, "invalid-request"


class Unauthorized(Problem):
    """No token, or a bad one. `reason` None: no token was sent, so the challenge stays bare (RFC 6750, section 3)."""

    status, code = 401, "unauthorized"

    def __init__(self, reason: str | None = None) -> None:
        challenge = "Bearer" if reason is None else f'Bearer error="invalid_token", error_description="{reason}"'
        self.kind = reason or "send a token: `Authorization: Bearer <token>`."
        super().__init__(f"Unauthorized: {self.kind}", headers={"WWW-Authenticate": challenge})


class Forbidden(Problem):
    status, code = 403, "forbidden"


class QuotaExceeded(Forbidden):
    code = "quota-exceeded"


def no_room() -> QuotaExceeded:
    return QuotaExceeded("You have as many tasks as there is room for; delete some first.")


class NotFound(Problem):
    status, code = 404, "not-found"


NO_ITEM = "The task's checklist has no item with this number; they are counted from 0."


class Missing(NotFound):
    """No task of the user's matched; which problem that is, is found out when the transaction is over (`queries.py`).

    `versions`: those that an If-Match named; `part`: what else wasn't there, in a sentence.
    """

    def __init__(self, id: str, versions: Collection[str] | None = None, part: str | None = None) -> None:
        super().__init__("There is no task with this id.")
        self.id, self.versions, self.part = id, versions, part


class Conflict(Problem):
    status, code = 409, "conflict"


def id_taken() -> Conflict:
    detail = "You have a task with this id already, perhaps in the trash, or had one and deleted it for good."
    return Conflict(detail, code="exists", errors=[("id", detail)])


class Gone(Problem):
    status, code = 410, "gone"


class PreconditionFailed(Problem):
    status, code = 412, "precondition-failed"


class UnsupportedMedia(Problem):
    status, code = 415, "unsupported-media-type"


class Invalid(Problem):
    """Fields or parameters with bad values: [(name, message), …]. The detail names the first: most clients show it."""

    status, code = 422, "invalid"

    def __init__(self, errors: list[tuple[str, str]]) -> None:
        field, message = printable(errors[0][0]), errors[0][1]
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        super().__init__(f"{field}: {message}{more}", errors=errors)


class TooManyRequests(Problem):
    """Over a limit, of those of a "user", of an "address", or of changes "at-once"; `retry_after` in whole seconds."""

    status, code = 429, "rate-limited"

    def __init__(self, detail: str, retry_after: int, limit: str = "user", code: str | None = None) -> None:
        super().__init__(detail, code=code, headers={"Retry-After": str(retry_after)})
        self.kind = limit


class Unavailable(Problem):
    """`reason`: what the operator should know and do, in one line; it is logged, and never sent."""

    status, code = 503, "unavailable"

    def __init__(self, detail: str, reason: str | None = None) -> None:
        super().__init__(detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
        self.reason = reason


class DatabaseUnavailable(Unavailable):
    """It can't be reached, doesn't answer in time, or refuses for now: another one may do what is asked for."""


def busy() -> Unavailable:
    return Unavailable("The service is busy; please try again.")


def printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def register(app: Flask, again: str | None) -> None:
    """Make `app` answer every failure as a problem. `again` is explained at `document`."""
    app.extensions["error"] = again
    app.register_error_handler(Problem, render)
    app.register_error_handler(HTTPException, from_http)
    # No connection was free in time (SQLAlchemy's pool).
    app.register_error_handler(PoolTimeout, lambda _: render(busy()))
    app.register_error_handler(Exception, from_unexpected)


def render(problem: Problem) -> Response:
    """The one way out: RFC 9457 members, and `message` for clients that read that name instead of `detail`."""
    if isinstance(problem, Unavailable) and problem.reason:
        log.warning("%s", problem.reason)
    # Not the problem itself, which would keep all that the request had alive, in a circle.
    g.failure = problem.code, problem.kind
    again = current_app.extensions["error"]
    kind = "application/json" if again else PROBLEM_JSON
    response = Response(document(problem, g.get("request_id"), again), problem.status, content_type=kind)
    response.headers.update(problem.headers)
    return response


def document(problem: Problem, request_id: str | None, again: str | None = None) -> bytes:
    """The body of the answer. `again`: another name to have code and sentence under, for clients that look there."""
    members: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "message": problem.detail,
        "code": problem.code,
        "errors": problem.errors,
        "request_id": request_id,
    }
    if again:
        members[again] = {"code": problem.code, "message": problem.detail}
    return orjson.dumps(members)


# What Flask and Werkzeug find: the code (spelt out, as Python renames the phrases) and the detail.
HTTP = {
    400: ("bad-request", "The request could not be understood."),
    404: ("not-found", "There is nothing at this address. The API is described at /api/docs."),
    405: ("method-not-allowed", "This address does not take that method; the Allow header lists those it takes."),
    413: ("body-too-large", "The request body is too large."),
}
BUG = "Something went wrong on our side. The request_id finds it in the service's log."


def from_http(error: HTTPException) -> Response:
    """A failure that Flask or Werkzeug found. The headers that belong to it (Allow, Retry-After, …) survive."""
    headers = {k: v for k, v in error.get_headers() if k.lower() not in ("content-type", "content-length")}
    status = error.code or 500
    if status < 400:
        return Response(status=status, headers=headers)
    code, detail = HTTP.get(status, ("http-error", error.description or "The request failed."))
    if status == 500:
        return render(Problem(BUG, headers=headers))
    return render(Problem(detail, status=status, code=code, headers=headers))


def from_unexpected(error: Exception) -> Response:
    """A bug: the log gets all of it, the client gets none of it."""
    log.error("unhandled exception", exc_info=error, extra={"request_id": g.get("request_id")})
    return render(Problem(BUG))
