"""The API's document, OpenAPI 3.1; the pages that show it are `pages.py`'s.

It is made from the blueprints and schemas when the app starts; what holds for many operations alike (errors,
conditions, idempotency, the bearer token) is added here instead of on every view.
"""

from typing import Any

import flask_smorest
import orjson
from flask import Flask, Response, g
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from .. import errors
from ..config import VERSION
from ..db.models import ANSWER_HOURS, MAX_ITEMS
from ..http.idempotency import HEADER as IDEMPOTENCY_KEY
from ..http.idempotency import MAX_KEY
from ..schemas.dialect import Shapes
from ..schemas.fields import Time
from ..schemas.tasks import ID, ProblemDetails
from . import addresses, pages
from .blueprint import ETAG, Blueprint

ABOUT = """\
Tasks for apps whose users sign in with [Better Auth](https://www.better-auth.com). Press **Authorize** and paste
a token: `(await authClient.token()).data.token` in the frontend, or `flask token --user NAME` in development.

Every path under `{tasks}` also exists as `{with_user}`, for the token's own user{besides}. Unknown fields and
parameters are ignored (a list names such parameters in `Ignored-Parameters`); send `Prefer: handling=strict` to have
them refused.
"""

INFO = {
    "contact": {"name": "Who runs this service"},
    "license": {"name": "All rights reserved", "url": "https://choosealicense.com/no-permission/"},
}

# Each error as the service would answer it, and what it means.
ERRORS: dict[errors.Problem | HTTPException, str] = {
    errors.InvalidRequest("The body names the same field twice.", code="duplicate-field"): (
        "Not JSON, not UTF-8, a field twice, or nested too deep; or an `Authorization` header that can't be read."
    ),
    errors.Unauthorized("the token has expired; get a fresh one with authClient.token()"): (
        "No token, or not a valid one; the `WWW-Authenticate` header and `detail` say why."
    ),
    errors.Forbidden("This task belongs to another user."): "The task is another user's, or there is no room for more.",
    errors.NotFound("There is no task with this id."): "No such task.",
    errors.Conflict("A request with this Idempotency-Key is still running; please try again in a moment."): (
        "The first request with this `Idempotency-Key` is still running; or the id of the new task is taken."
    ),
    errors.Gone("This token is too old: deletions since then are no longer known. Start again without `since`."): (
        "The token in `since` is too old."
    ),
    errors.PreconditionFailed('The task has changed: its version is now "18". Read it again, then retry.'): (
        "The task has changed since the version that the request names."
    ),
    RequestEntityTooLarge(): "The body is too large: 1 MiB is the limit, 16 MiB for an import.",
    errors.UnsupportedMedia("The body must be JSON."): "The body is of a type that is not taken here.",
    errors.Invalid([("title", "Length must be between 1 and 200.")]): "A bad value; `errors` names each field.",
    errors.TooManyRequests("Too many requests; try again in 42 s.", 42): "Try again after `Retry-After` seconds.",
    errors.Unavailable("The database cannot be reached."): "Try again after `Retry-After` seconds.",
}
IF_MATCH = "Change only what still has this ETag, or one of these. Answered by 412 when it has changed since."
IF_MATCH_ONE = f'{IF_MATCH} A `version` in quotes does as well: `"17"`.'
IF_NONE_MATCH = "The ETag of what the client has: answered by 304 while nothing has changed."
IDEMPOTENT = (
    f"Any new text of up to {MAX_KEY} characters, a UUID for example. A repetition with the same key is done once, and "
    f"answered as the first time, for {ANSWER_HOURS} hours."
)
KEY = {"maxLength": MAX_KEY, "pattern": "^[!-~]+( +[!-~]+)*$", "examples": ["5f1c6d1e-8f0b-4c39-a3a6-0a2e5f4d7b11"]}
PREFER = "`handling=strict` refuses unknown fields and parameters with 422."
# What an operation may answer because it has this parameter, or is at this address.
FAILURES = {
    "id": {"403", "404"},
    "since": {"410"},
    "Prefer": {"422"},
    "If-Match": {"412"},
    # No room for more; still running; used for another request.
    IDEMPOTENCY_KEY: {"403", "409", "422"},
    "/api/tasks/batch": {"404", "412"},
}
# What Swagger UI proposes to send: a few fields, where the schema's own examples would make it all of them.
BODIES = {
    "TaskCreate": {"title": "Buy milk", "priority": "high", "category": "Groceries", "tags": ["shopping"]},
    "TaskUpdate": {"title": "Buy oat milk", "due_date": "2026-12-31T18:00:00+01:00"},
    "ChecklistItemUpdate": {"completed": True},
    "Move": {"after": ID},
    "Batch": {
        "operations": [
            {"op": "create", "task": {"title": "Buy milk"}},
            {"op": "create", "task": {"title": "Bake bread", "tags": ["home"]}},
        ]
    },
    "ImportTask": {"id": ID, "title": "Buy milk", "completed": True, "completed_at": "2026-11-20T08:00:00Z"},
}


class Api(flask_smorest.Api):  # type: ignore[misc]  # the library has no types
    """flask-smorest's document, without its own errors and pages: errors leave through `errors.py`."""

    DEFAULT_ERROR_RESPONSE_NAME = None

    def _register_error_handlers(self) -> None:
        pass

    def _register_responses(self) -> None:
        pass

    def _register_pagination_header(self) -> None:
        pass


def api_of(app: Flask) -> Api:
    """The document of `app`, to register blueprints in; `publish` serves it when all are there."""
    app.config |= {"API_TITLE": "todo_service", "API_VERSION": VERSION, "OPENAPI_VERSION": "3.1.0"}
    api = Api(app, spec_kwargs={"info": INFO, "servers": [{"url": "/", "description": "Where this document is."}]})
    api.spec.components.security_scheme("bearer", {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"})
    shapes: Shapes = app.extensions["shapes"]
    if name := shapes.dialect.cookie:
        api.spec.components.security_scheme("cookie", {"type": "apiKey", "in": "cookie", "name": name})
    api.register_field(Time, "string", "date-time")
    api.spec.components.schema("Problem", schema=shapes.documented(ProblemDetails))
    with app.app_context():
        g.request_id = ID
        for error, description in ERRORS.items():
            answer = errors.from_http(error) if isinstance(error, HTTPException) else errors.render(error)
            api.spec.components.response(f"Error{answer.status_code}", documented(answer, description))
    return api


def documented(error: Response, description: str) -> dict[str, Any]:
    """An OpenAPI response whose example is `error`, with the headers that belong to it."""
    schema = {"$ref": "#/components/schemas/Problem"}
    headers = {name: value for name, value in error.headers.items() if not name.startswith("Content-")}
    return {
        "description": description,
        "headers": {name: {"schema": {"type": "string"}, "example": value} for name, value in headers.items()},
        "content": {error.mimetype: {"schema": schema, "example": orjson.loads(error.get_data())}},
    }


def publish(app: Flask, api: Api) -> None:
    """Complete the document and serve it."""
    document = api.spec.to_dict()
    shapes: Shapes = app.extensions["shapes"]
    addresses.document_verbs(document["paths"], shapes.dialect)
    for path, operations in document["paths"].items():
        operations.pop("parameters", None)
        for method, operation in operations.items():
            complete(path, method, operation)
            operation["security"] = [{scheme: []} for scheme in document["components"]["securitySchemes"]]
    schemas = document["components"]["schemas"]
    for (shape, *_), name in api.ma_plugin.converter.refs.items():
        if hasattr(shape, "variants"):
            split(schemas, name, shape)
    for name, schema in schemas.items():
        # Unknown fields are ignored, and an answer may get new ones.
        schema.pop("additionalProperties", None)
        if name in BODIES:
            schema["example"] = shapes.example(BODIES[name])
    document = addresses.moved(document, shapes.dialect)
    document["info"]["description"] = ABOUT.format_map(addresses.told(shapes.dialect))
    app.extensions["openapi"] = orjson.dumps(document)
    app.register_blueprint(pages.blueprint)


def split(schemas: dict[str, Any], name: str, shape: Any) -> None:
    """Document a schema as one of its variants, which stand beside it under names of their own."""
    properties, references, mapping = schemas[name]["properties"], [], {}
    for title, variant in shape.variants.items():
        fields = [field for field in properties if field in (*variant.needed, *variant.optional)]
        schemas[title] = {
            "type": "object",
            "properties": {field: variant.told.get(field, properties[field]) for field in fields},
            "required": [field for field in fields if field in variant.needed],
        }
        references.append({"$ref": f"#/components/schemas/{title}"})
        if shape.discriminator:
            mapping[variant.told[shape.discriminator]["enum"][0]] = references[-1]["$ref"]
    schemas[name] = {"oneOf": references}
    # OpenAPI's own discriminator is a text.
    if shape.discriminator and properties[shape.discriminator]["type"] == "string":
        schemas[name]["discriminator"] = {"propertyName": shape.discriminator, "mapping": mapping}


def complete(path: str, method: str, operation: dict[str, Any]) -> None:
    """Add what every operation of this kind has."""
    body, parameters = "requestBody" in operation, operation.setdefault("parameters", [])
    [success] = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
    headers = success.pop("headers", {})
    if any(parameter["name"] == "count" for parameter in parameters):
        headers |= Blueprint.headers("X-Total-Count")
    if body or parameters:
        parameters.append(parameter("header", "Prefer", PREFER, {"examples": ["handling=strict"]}))
    if "{id}" in path:
        parameters.insert(0, parameter("path", "id", "The task's id.", {"format": "uuid", "examples": [ID]}))
    if "{n}" in path:
        told = {"type": "integer", "minimum": 0, "maximum": MAX_ITEMS - 1}
        parameters.insert(1, parameter("path", "n", "The item's number, counted from 0.", told))
    if method == "delete" or ("{id}" in path and method != "get"):
        text = IF_MATCH_ONE if "{id}" in path else IF_MATCH
        parameters.append(parameter("header", "If-Match", text, {"examples": [ETAG]}))
    if method == "get" and "ETag" in headers:
        operation["responses"]["304"] = {"description": "Nothing has changed since the version in `If-None-Match`."}
        parameters.append(parameter("header", "If-None-Match", IF_NONE_MATCH, {"examples": [ETAG]}))
    if method == "post":
        headers |= Blueprint.headers("Idempotency-Replayed")
        parameters.append(parameter("header", IDEMPOTENCY_KEY, IDEMPOTENT, KEY))
    if headers:
        success["headers"] = headers
    statuses = {"400", "401", "429", "503"} | ({"413", "415"} if body else set())
    statuses = statuses.union(*[FAILURES.get(parameter["name"], set()) for parameter in parameters])
    statuses |= FAILURES.get(path, set())
    operation["responses"] |= {status: {"$ref": f"#/components/responses/Error{status}"} for status in statuses}
    operation["responses"] = dict(sorted(operation["responses"].items()))


def parameter(place: str, name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    """A string. Examples stand in its schema: Swagger UI would send one of the parameter's own if nobody removed it."""
    described = {"description": description, "required": place == "path", "schema": {"type": "string"} | schema}
    return {"in": place, "name": name} | described
