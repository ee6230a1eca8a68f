"""Statements that PostgreSQL knows by a name, because it spends up to half of its time for a short one on planning it.

What a connection has sent a few times is prepared there, and goes by its name from then on. Behind a pooler that gives
each message another connection (PgBouncer's transaction mode) the name may be unknown, or taken already by the same
statement: then the message fails as a whole, and is sent again as it was; that connection prepares nothing more.
Off by `DB_PREPARE=off`, and where the database has several nodes; nothing else knows of it.
"""

import hashlib
import re
from functools import lru_cache
from typing import Any

from psycopg2.errors import DuplicatePreparedStatement, FeatureNotSupported, InvalidSqlStatementName
from sqlalchemy import Engine, Text, event
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine.interfaces import DBAPICursor, ExecutionContext
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import NullType, TypeEngine

from .session import SCOPED

# So often a statement is sent in full on a connection before it is prepared; and so many are prepared at most.
SENT_BEFORE, MAX_PREPARED = 3, 100
PARAMETER = re.compile(r"%\((\w+)\)s")
# One plan for all values: left to itself, PostgreSQL goes on planning anew wherever it can't know a LIMIT beforehand.
ONE_PLAN = "SET LOCAL plan_cache_mode = force_generic_plan; "
UNKNOWN = (DuplicatePreparedStatement, FeatureNotSupported, InvalidSqlStatementName)


def use(engine: Engine) -> None:
    """Have `engine` prepare what it sends often."""
    event.listen(engine, "do_execute", execute)


def execute(cursor: DBAPICursor, statement: str, parameters: Any, context: ExecutionContext) -> bool:
    """Send a statement by its name (SQLAlchemy's event do_execute); False: it is to be sent as it is."""
    connection, body = cursor.connection, context.statement
    known: dict[str, int] | None = connection.prepared
    # Inside of a transaction it could not be sent again, were the name unknown.
    if known is None or context.compiled is None or not body or not statement.startswith(SCOPED):
        return False
    if len(known) >= MAX_PREPARED and body not in known:
        # What was sent seldom makes room.
        for seldom in [text for text, times in known.items() if times <= SENT_BEFORE]:
            del known[seldom]
        if len(known) >= MAX_PREPARED:
            return False
    known[body] = count = known.get(body, 0) + 1
    if count <= SENT_BEFORE:
        return False
    first = context.execution_options.get("first", "")
    prepare, by_name = texts(first + body, context.compiled)
    scope = statement.removesuffix(first + body)
    message = (prepare if count == SENT_BEFORE + 1 else "") + scope + ONE_PLAN + by_name
    try:
        cursor.execute(message, parameters)
    except UNKNOWN:
        connection.prepared = None
        cursor.execute(statement, parameters)
    return True


@lru_cache(maxsize=512)
def texts(message: str, compiled: SQLCompiler) -> tuple[str, str]:
    """What prepares its statements, and what executes them. The same names are the same message, whoever sent it."""
    parts = [numbered(statement, compiled) for statement in message.split("; ")]
    name = "todo_" + hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    prepare = "".join(f"PREPARE {name}_{n}{types} AS {text}; " for n, (types, text, _) in enumerate(parts))
    return prepare, "; ".join(f"EXECUTE {name}_{n}{values}" for n, (_, _, values) in enumerate(parts))


def numbered(statement: str, compiled: SQLCompiler) -> tuple[str, str, str]:
    """The types of its parameters, the statement with numbers for them, and what stands for their values."""
    names = list(dict.fromkeys(PARAMETER.findall(statement)))
    if not names:
        return "", statement, ""
    # What SQLAlchemy doesn't bind is the owner.
    types = (type_name(compiled.binds[name].type) if name in compiled.binds else "text" for name in names)
    text = PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", statement)
    return f"({', '.join(types)})", text, f"({', '.join(f'%({name})s' for name in names)})"


def type_name(kind: TypeEngine[Any]) -> str:
    """Without the collation that belongs to columns; PostgreSQL finds out itself what isn't known."""
    names = {Text: "text", NullType: "unknown"}
    return names.get(type(kind)) or kind.compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]
