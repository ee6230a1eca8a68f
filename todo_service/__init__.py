"""Tasks for the users of Better Auth: tokens verified, tasks kept in PostgreSQL, nobody's rows shown to anyone else.

A request goes down through the rooms; a module imports only from its own room and those below:

    app.py      the factory: puts everything together
    cli/        the `flask` commands: schema, distribution, upkeep, users, development
    api/        what HTTP sees: the views of tasks, batch, changes, stats, transfer (export, import) and health, and the
                OpenAPI document with its pages
    formats/    files: JSON, CSV, iCalendar
    schemas/    the shapes of tasks, of their fields, and of what an address may ask for; in the frontend's dialect, too
    http/       what every request passes: bearer token (and in tokens/, who vouches for it), rate limit, gate, parsing,
                conditions, idempotency, CORS, logs, metrics
    tasks/      what tasks are and do: queries, counts, the delta feed, commands, order, paging, recurrence, imports,
                retention; no HTTP in it
    db/         models, the session and its two walls, the engine
    errors.py   every failure, and its one way out
    config.py   settings
    dialect.py  one of them, API_DIALECT: how an existing frontend says things
    processors.py  where a server's processes run

A view gets a `Session` of its user from `http/authentication.py`, what the request has from `http/parsing.py` through
the schemas, and calls `tasks/`: `queries.py` to read, `commands.py` to change.
"""

from .app import create_app

__all__ = ["create_app"]
