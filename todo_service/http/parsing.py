"""What a request carries, into what a view takes: JSON body and query string, through the schemas.

Lenient by default: fields and parameters that nobody knows are ignored, because real forms send some of their own.
A client that wants its typos found sends `Prefer: handling=strict` (RFC 7240, section 4.4) and gets 422 for them.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from io import BytesIO
from typing import IO, Any
from urllib.request import parse_http_list

import flask
import marshmallow as ma
from flask import Response, after_this_request, g, request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge
from werkzeug.http import unquote_header_value
from werkzeug.utils import cached_property
from werkzeug.wsgi import get_input_stream

from ..errors import Invalid, InvalidRequest, UnsupportedMedia
from .current import current_request

MAX_DEPTH = 32
# What the proxy lets through at most (deploy/nginx.conf), in bytes: a little more than any view takes.
MAX_UNREAD = 17 * 1024 * 1024


class Request(flask.Request):
    """A request whose body is all there, or refused.

    By itself Werkzeug takes what came up to the limit for the whole of a chunked body, and what came before the client
    went away for the whole of one with a length (where the server ends the stream, as gunicorn does).
    """

    @cached_property
    def stream(self) -> IO[bytes]:
        limit, length = self.max_content_length or 0, self.content_length or 0
        if length > limit:
            raise RequestEntityTooLarge
        try:
            body = get_input_stream(self.environ, max_content_length=limit + 1).read()
        except (ParseException, ClientDisconnected):
            raise InvalidRequest(
                "The body did not come in full, or not in proper chunks.", code="broken-body"
            ) from None
        if len(body) > limit:
            raise RequestEntityTooLarge
        if len(body) < length:
            raise InvalidRequest("The body ended before its Content-Length.", code="broken-body")
        return BytesIO(body)


def read_the_rest(response: Response) -> Response:
    """Take in what nobody wanted of the body before the answer is given.

    Else the server would close the connection on a proxy that is still sending, and a client whose token has expired
    would be told instead that the service can't be reached. Proxies say the length of what they have taken in; after
    chunks, and what is larger, the connection ends (gunicorn.conf.py).
    """
    asked = current_request()
    # Where there is a stream, it is of all that came.
    if "stream" not in vars(asked) and 0 < (asked.content_length or 0) <= MAX_UNREAD:
        rest = get_input_stream(asked.environ)
        with suppress(ParseException, ClientDisconnected, OSError):
            while rest.read(65536):
                pass
    return response


def query(schema: ma.Schema) -> dict[str, Any]:
    """The request's parameters, loaded by `schema`. Raises Invalid."""
    return dict(_query(schema, request.query_string, strict()))


@lru_cache(maxsize=1024)
def _query(schema: ma.Schema, _query_string: bytes, strictly: bool) -> dict[str, Any]:
    """Kept, because many requests have the same parameters, or none.

    One that is repeated becomes a list, which a field for a single value refuses.
    """
    parameters = {name: values if len(values) > 1 else values[0] for name, values in request.args.lists()}
    return load(schema, parameters, strictly)


def body(schema: ma.Schema) -> dict[str, Any]:
    """The request's JSON body, loaded by `schema`. Raises Invalid, InvalidRequest, UnsupportedMedia.

    Where all of it is optional (`body_optional` on the schema), no body at all counts as `{}`.
    """
    asked, optional = current_request(), getattr(schema, "body_optional", False)
    return load(schema, {} if optional and not asked.get_data() else json_body(asked), strict())


def load(schema: ma.Schema, value: Any, strictly: bool) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = schema.load(value, unknown=ma.RAISE if strictly else ma.EXCLUDE)
    except ma.ValidationError as error:
        raise Invalid(list(flat(error.messages_dict))) from None
    return loaded


def strict() -> bool:
    """Whether the client asked to be told of names that nobody knows."""
    if "HTTP_PREFER" not in request.environ:
        return False
    g.strict = preferences(",".join(request.headers.getlist("Prefer"))).get("handling") == "strict"
    if g.strict:
        after_this_request(confirm_strictness)
    return bool(g.strict)


def preferences(header: str) -> dict[str, str]:
    """The preferences in a Prefer header by name, of equal ones the first; without parameters (RFC 7240, section 2)."""
    found: dict[str, str] = {}
    for item in parse_http_list(header.lower()):
        name, _, value = item.partition(";")[0].partition("=")
        found.setdefault(name.strip(), unquote_header_value(value.strip()))
    return found


def confirm_strictness(response: Response) -> Response:
    """Tell the client that its preference was heeded (RFC 7240, section 3)."""
    response.headers["Preference-Applied"] = "handling=strict"
    return response


def json_body(req: flask.Request) -> Any:
    """The request's JSON value. Raises UnsupportedMedia, InvalidRequest, or Invalid for a number beyond all bounds."""
    if not req.is_json:
        raise UnsupportedMedia("The body must be JSON, sent as `Content-Type: application/json`.")
    if req.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMedia("The body must not be compressed.")
    try:
        text = req.get_data().decode()
        value = DECODER.decode(text)
    except UnicodeDecodeError:
        raise InvalidRequest("The body is not UTF-8.") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidRequest(f"The body is not JSON: {error.msg} ({where}).", code="invalid-json") from None
    except RecursionError:
        raise too_deep() from None
    except ValueError:
        raise Invalid([("body", "A number in it has too many digits.")]) from None
    if text.count("[") + text.count("{") > MAX_DEPTH and deeper_than(value, MAX_DEPTH):
        raise too_deep()
    return value


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, which must not name a member twice: readers differ in which of the two they take (RFC 8259, 4)."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise InvalidRequest("The body names the same field twice.", code="duplicate-field")
    return members


def refuse(constant: str) -> None:
    """Python's own NaN, Infinity and -Infinity; numbers are digits (RFC 8259, section 6)."""
    raise InvalidRequest(f"The body is not JSON: {constant} is no number.", code="invalid-json")


DECODER = json.JSONDecoder(object_pairs_hook=unique, parse_constant=refuse)


def deeper_than(value: Any, levels: int) -> bool:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return inside is not None and (levels == 0 or any(deeper_than(item, levels - 1) for item in inside))


def too_deep() -> InvalidRequest:
    return InvalidRequest(f"The body is nested deeper than {MAX_DEPTH} levels.", code="too-deep")


def flat(messages: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """marshmallow's nested messages as (field, message), the way to an inner field written with dots."""
    if isinstance(messages, dict):
        for name, inner in messages.items():
            inside = "body" if name == "_schema" and not path else str(name)
            yield from flat(inner, path if name == "_schema" and path else f"{path}.{inside}".lstrip("."))
    else:
        yield from ((path or "body", str(message)) for message in messages)
