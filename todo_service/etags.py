"""Entity tags and the conditions on them (RFC 9110, sections 8.8 and 13): a version in quotes.

Whether a version still holds is not decided here: for a change it goes into the statement's WHERE, because a check that
is made before the change is a race.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson
from flask import Response, request
from werkzeug.datastructures import Headers

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

NONE: Mapping[str, str] = {}
NOT_KEPT = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
KEPT = NOT_KEPT | {"Cache-Control": "private, no-cache", "Vary": "Authorization, Origin"}
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
    """An answer that is whole from the start, with all that depends on it in its headers. `body` None: it has none."""

    def __init__(self, body: bytes | None, status: int, version: int | None, headers: Mapping[str, str] = NONE) -> None:
        kept = version is not None and request.method in ("GET", "HEAD")
        made = Headers()
        if body is not None:
            made.add("Content-Length", str(len(body)))
        for name, value in (KEPT if kept else NOT_KEPT).items():
            made.add(name, value)
        for name, value in headers.items():
            made.add(name, value)
        if version is not None:
            made.add("ETag", f'"{version}"')
        super().__init__([] if body is None else [body], status, made, content_type="application/json")
        if body is None:
            self.headers.remove("Content-Type")

    def get_wsgi_headers(self, environ: "WSGIEnvironment") -> Headers:
        return self.headers


def answer(body: Any, version: int | None = None, status: int = 200, headers: Mapping[str, str] = NONE) -> Response:
    """`body` as JSON with its ETag."""
    return Answer(orjson.dumps(body, option=JSON_OPTIONS), status, version, headers)


def not_modified(version: int) -> Response:
    """What the client has is still right."""
    return Answer(None, 304, version)


def caching(response: Response) -> Response:
    """Let a browser keep what it reads and ask again each time; let nobody keep anything else."""
    if not isinstance(response, Answer):
        for name, value in NOT_KEPT.items():
            response.headers.setdefault(name, value)
    return response
