"""Entity tags and the conditions on them (RFC 9110, sections 8.8 and 13): a version in quotes.

Whether a version still holds is not decided here: for a change it goes into the statement's WHERE, because a check that
is made before the change is a race.
"""

from typing import TYPE_CHECKING, Any

import orjson
from flask import Response, request
from werkzeug.datastructures import Headers

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

JSON_OPTIONS = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z


def if_match() -> list[int] | None:
    """The versions a change may start from; None: any. A tag that is no version, or a weak one, matches none."""
    if "HTTP_IF_MATCH" not in request.environ:
        return None
    tags = request.if_match
    return None if tags.star_tag else versions(tags.as_set())


def if_none_match() -> int | None:
    """The version the client has already, compared weakly, as a proxy that compresses makes the tag weak."""
    if "HTTP_IF_NONE_MATCH" not in request.environ:
        return None
    known = versions(request.if_none_match.as_set(include_weak=True))
    return known[0] if known else None


def versions(tags: set[str]) -> list[int]:
    return [int(tag) for tag in tags if tag.isascii() and tag.isdigit() and len(tag) < 19]


class Answer(Response):
    """A JSON answer. It has all its headers from the start, so there are none to be found out when it's sent."""

    def get_wsgi_headers(self, environ: "WSGIEnvironment") -> Headers:
        return self.headers


def answer(body: Any, version: int | None = None, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """`body` as JSON with its ETag."""
    response = Answer(orjson.dumps(body, option=JSON_OPTIONS), status, headers, content_type="application/json")
    if version is not None:
        response.headers["ETag"] = f'"{version}"'
    return response


def not_modified(version: int) -> Response:
    """What the client has is still right."""
    return Response(status=304, headers={"ETag": f'"{version}"'})


def caching(response: Response) -> Response:
    """Let a browser keep what it reads and ask again each time; let nobody keep anything else."""
    readable = request.method in ("GET", "HEAD") and "ETag" in response.headers
    response.headers.setdefault("Cache-Control", "private, no-cache" if readable else "no-store")
    response.headers["X-Content-Type-Options"] = "nosniff"
    if readable:
        response.headers["Vary"] = "Authorization, Origin"
    return response
