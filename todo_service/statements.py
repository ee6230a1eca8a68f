"""SQLAlchemy's statements as texts for PostgreSQL, compiled once, and known to the server by a name where that pays.

PostgreSQL spends two thirds of its time for a short statement on reading and planning it. So what a connection has sent
a few times is prepared there, and goes by its name from then on. Behind a pooler that gives each message another
connection (PgBouncer's transaction mode) the name may be unknown, or taken already by the same statement: then the
message fails as a whole, and is sent again as it was before; that connection prepares nothing more.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from psycopg2.errors import DuplicatePreparedStatement, FeatureNotSupported, InvalidSqlStatementName
from psycopg2.extensions import adapt
from sqlalchemy import ClauseElement, Text
from sqlalchemy.dialects.postgresql import psycopg2 as psycopg2_dialect
from sqlalchemy.types import NullType, TypeEngine

# So often a statement is sent in full on a connection before it is prepared; and so many are prepared at most.
SENT_BEFORE, MAX_PREPARED = 3, 100

DIALECT = psycopg2_dialect.dialect()  # type: ignore[no-untyped-call]
PARAMETER = re.compile(r"%\((\w+)\)s")


class Statement(NamedTuple):
    """Its text, with places for the values by name; its name, the text that prepares it, and the one that executes it.

    What had a value from the start is a part of the text.
    """

    sql: str
    name: str
    prepare: str
    execute: str


class Query:
    """A statement, or several that go out in one message; what comes back is the last one's answer."""

    __slots__ = ("sql", "statements")

    def __init__(self, *statements: ClauseElement) -> None:
        self.statements = [_statement(statement) for statement in statements]
        self.sql = "; ".join(statement.sql for statement in self.statements)


def _statement(statement: ClauseElement) -> Statement:
    types: dict[str, TypeEngine[Any]] = {}
    sql = _text(statement, types)
    names = list(dict.fromkeys(PARAMETER.findall(sql)))
    numbered = PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", sql)
    given = f"({', '.join(_type(types[name]) for name in names)})" if names else ""
    # The same name is the same statement, whoever has prepared it.
    name = "todo_" + hashlib.sha256(f"{given} {numbered}".encode()).hexdigest()[:16]
    values = f"({', '.join(f'%({name})s' for name in names)})" if names else ""
    return Statement(sql, name, f"PREPARE {name}{given} AS {numbered}", f"EXECUTE {name}{values}")


def _text(statement: ClauseElement, types: dict[str, TypeEngine[Any]]) -> str:
    compiled: Any = statement.compile(dialect=DIALECT)
    types |= {name: bind.type for name, bind in compiled.binds.items()}
    constants = {name: value for name, value in compiled.params.items() if value is not None}
    return PARAMETER.sub(
        lambda found: _literal(constants[found[1]]) if found[1] in constants else found[0], str(compiled)
    )


def _literal(value: Any) -> str:
    text: str = adapt(value).getquoted().decode()
    return text.replace("%", "%%")


def _type(kind: TypeEngine[Any]) -> str:
    """A type's name, without the collation that belongs to columns; PostgreSQL finds out itself what isn't known."""
    names = {Text: "text", NullType: "unknown"}
    return names.get(type(kind)) or kind.compile(dialect=DIALECT)


UNKNOWN = (DuplicatePreparedStatement, FeatureNotSupported, InvalidSqlStatementName)


class NotPrepared(Exception):
    """The server doesn't know what this connection has prepared, and the transaction has failed with that."""


class Prepared:
    """What one connection has prepared."""

    def __init__(self) -> None:
        self._sent: Counter[str] = Counter()
        self._prepared: set[str] = set()
        self._works = True

    def send(self, query: Query, send: Callable[[str], Any]) -> Any:
        """Let `send` send the text that is the shortest for the server, all of it or none."""
        text = self._text(query)
        try:
            return send(text)
        except UNKNOWN:
            if text == query.sql:
                raise
            self._works = False
            return send(query.sql)

    def send_known(self, query: Query, send: Callable[[str], Any]) -> Any:
        """Let `send` send a part of a transaction, by the names that are known. Raises NotPrepared."""
        known = self._works and all(statement.name in self._prepared for statement in query.statements)
        try:
            return send("; ".join(statement.execute for statement in query.statements) if known else query.sql)
        except UNKNOWN:
            if not known:
                raise
            self._works = False
            raise NotPrepared from None

    def _text(self, query: Query) -> str:
        if not self._works:
            return query.sql
        # Ahead of all else, so that whatever fails in the message, they are prepared.
        first = [statement.prepare for statement in query.statements if self._is_due(statement)]
        known = (
            statement.execute if statement.name in self._prepared else statement.sql for statement in query.statements
        )
        return "; ".join([*first, *known])

    def _is_due(self, statement: Statement) -> bool:
        """Count it as sent, and say whether it's to be prepared this time: then it counts as prepared."""
        if statement.name in self._prepared:
            return False
        self._sent[statement.name] += 1
        if len(self._prepared) >= MAX_PREPARED or self._sent[statement.name] <= SENT_BEFORE:
            return False
        self._prepared.add(statement.name)
        return True
