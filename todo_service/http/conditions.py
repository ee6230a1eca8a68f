"""Entity tags and the conditions on them (RFC 9110, sections 8.8 and 13): `"17-5f0c93b1a2d4"`, a version and a nonce.

Browsers revalidate with whatever they have stored for an address, be it of the user before; so a tag must be good for
one user's answer alone, and for one life of that user. That is what the nonce is for, which is the owner's. A change of
one task may name the version alone, `"17"`: it can't be taken for another's.

Whether a tag still holds is not decided here: for a change it goes into the statement's WHERE, because a check that is
made before the change is a race.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import orjson
from flask import Flask, Response, current_app, request
from werkzeug.datastructures import Headers

from ..tasks.queries import ANY

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

NO_HEADERS: Mapping[str, str] = {}
NOT_KEPT = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
KEPT = NOT_KEPT | {"Cache-Control": "private, no-cache", "Vary": "Authorization, Origin"}
JSON_OPTIONS = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z


def if_match() -> list[str] | None:
    """The tags a change may start from; None: any. A tag that is none of ours, or a weak one, matches none."""
    if "HTTP_IF_MATCH" not in request.environ:
        return None
    tags = request.if_match
    return None if tags.star_tag else ours(tags.as_set())


def if_none_match() -> list[str]:
    """The tags the client has already, or ANY; compared weakly, as a proxy that compresses makes a tag weak."""
    if "HTTP_IF_NONE_MATCH" not in request.environ:
        return []
    tags = request.if_none_match
    return [ANY] if tags.star_tag else ours(tags.as_set(include_weak=True))


def known(etag: str) -> bool:
    """Whether the client has already what has this tag."""
    return not {etag, ANY}.isdisjoint(if_none_match())


def ours(tags: Iterable[str | None]) -> list[str]:
    """Those that may be of here, without the dialect's mark; Werkzeug has None for an empty one."""
    found = map(pattern(current_app.extensions["mark"]).fullmatch, filter(None, tags))
    return [match[1] or match[2] for match in found if match]


@cache
def pattern(mark: str) -> re.Pattern[str]:
    """A tag: version, nonce and mark; or, where one task is changed, a version alone."""
    return re.compile(rf"([0-9]{{1,18}})|([0-9]{{1,18}}-[0-9a-f]{{1,32}}){re.escape(mark)}")


def register(app: Flask, mark: str) -> None:
    """Let all tags of `app` end in `mark`, which its dialect has: no answer in one is good for another."""
    app.extensions["mark"] = mark

    def add_mark(response: Response) -> Response:
        tag = response.headers.get("ETag", "").strip('"')
        # Files have tags of another form.
        if pattern("").fullmatch(tag):
            response.headers["ETag"] = f'"{tag}{mark}"'
        return response

    if mark:
        app.after_request(add_mark)


class Answer(Response):
    """An answer that is whole from the start, with all that depends on it in its headers. `body` None: it has none."""

    def __init__(
        self, body: bytes | None, status: int, etag: str | None, headers: Mapping[str, str] = NO_HEADERS
    ) -> None:
        kept = etag is not None and request.method in ("GET", "HEAD")
        made = Headers()
        if body is not None:
            made.add("Content-Length", str(len(body)))
        for name, value in (KEPT if kept else NOT_KEPT).items():
            made.add(name, value)
        for name, value in headers.items():
            made.add(name, value)
        if etag is not None:
            made.add("ETag", f'"{etag}"')
        super().__init__([] if body is None else [body], status, made, content_type="application/json")
        if body is None:
            self.headers.remove("Content-Type")

    def get_wsgi_headers(self, environ: "WSGIEnvironment") -> Headers:
        return self.headers

    def get_app_iter(self, environ: "WSGIEnvironment") -> list[bytes]:
        """As a list: a server need not ask for more, and can send it together with the head."""
        return [] if environ["REQUEST_METHOD"] == "HEAD" else cast("list[bytes]", self.response)


def answer(body: Any, etag: str | None = None, status: int = 200, headers: Mapping[str, str] = NO_HEADERS) -> Response:
    """`body` as JSON with its ETag."""
    return Answer(orjson.dumps(body, option=JSON_OPTIONS), status, etag, headers)


def not_modified(etag: str) -> Response:
    """What the client has is still right."""
    return Answer(None, 304, etag)


def caching(response: Response) -> Response:
    """Let a browser keep what it reads and ask again each time; let nobody keep anything else."""
    if not isinstance(response, Answer):
        for name, value in NOT_KEPT.items():
            response.headers.setdefault(name, value)
    return response
