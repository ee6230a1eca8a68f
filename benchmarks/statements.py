"""The statements that a request sends, as they are sent, and PostgreSQL's account of what they cost.

psycopg2 tells what it has put on the wire; so whatever the service does to its statements on the way is in it. What it
sends by name is explained by name, on a connection that has prepared it as the service's did.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg2.extensions
from sqlalchemy import Engine, event

EXPLAIN = "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) "
# A message's statements, whose texts in quotes may have anything in them.
STATEMENT = re.compile(r"(?:[^;']|'(?:[^']|'')*')+")
PREPARE, EXECUTE = re.compile(r"PREPARE (\w+)"), re.compile(r"EXECUTE (\w+)")


class Cost(NamedTuple):
    """Of all the statements of one operation: planning and execution, pages read and spilled, how tables were read."""

    milliseconds: float
    pages: int
    spilled: int
    scans: frozenset[str]


class Recorder:
    """Keeps what an engine's connections send."""

    def __init__(self, engine: Engine) -> None:
        self.sent: list[str] = []
        self._prepared: dict[str, str] = {}
        sent, prepared = self.sent, self._prepared

        class Recording(psycopg2.extensions.cursor):
            def execute(self, query: Any, vars: Any = None) -> None:
                super().execute(query, vars)
                message = (self.query or b"").decode()
                if "PREPARE " in message:
                    prepared.update((found[1], part) for part in parts(message) if (found := PREPARE.match(part)))
                sent.append(message)

        event.listen(engine, "connect", lambda connection, _record: setattr(connection, "cursor_factory", Recording))
        engine.dispose()

    def taken(self) -> list[str]:
        """What was sent since the last time, without the ends of transactions; what goes by a name says what it is."""
        messages = [self._whole(message) for message in self.sent if message not in ("COMMIT", "ROLLBACK")]
        self.sent.clear()
        return messages

    def _whole(self, message: str) -> str:
        named = [found[1] for part in parts(message) if (found := EXECUTE.match(part))]
        return "; ".join([*(self._prepared[name] for name in named), message])


def cost(cursor: psycopg2.extensions.cursor, messages: list[str]) -> Cost:
    """What `messages` cost. Whatever they change is undone."""
    accounts = [account for message in messages for account in explained(cursor, message)]
    roots = [account["Plan"] for account in accounts]
    return Cost(
        sum(account["Planning Time"] + account["Execution Time"] for account in accounts),
        sum(root["Shared Hit Blocks"] + root["Shared Read Blocks"] for root in roots),
        sum(root["Temp Written Blocks"] for root in roots),
        frozenset(scan(node) for root in roots for node in nodes(root) if "Scan" in node["Node Type"]) - {""},
    )


def parts(message: str) -> list[str]:
    """The statements of a message."""
    return [part.strip() for part in STATEMENT.findall(message) if part.strip()]


def explained(cursor: psycopg2.extensions.cursor, message: str) -> list[dict[str, Any]]:
    """PostgreSQL's account of each statement of a message."""
    accounts = []
    # A prepared statement outlives the transaction, and is planned once: so it is in the service.
    cursor.execute("SELECT name FROM pg_prepared_statements")
    known = {name for (name,) in cursor.fetchall()}
    for part in parts(message):
        if found := PREPARE.match(part):
            if found[1] not in known:
                cursor.execute(part)
                known.add(found[1])
        elif part.startswith("SET "):
            cursor.execute(part)
        # psycopg2 has begun a transaction already.
        elif part != "BEGIN":
            cursor.execute(EXPLAIN + part)
            [[[plan]]] = cursor.fetchall()
            accounts.append(plan)
    cursor.connection.rollback()
    return accounts


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


def scan(node: dict[str, Any]) -> str:
    """How a table or an index is read; nothing for what is read from memory. A node that never ran doesn't count."""
    name = node.get("Index Name") or node.get("Relation Name")
    return f"{node['Node Type']} {name}" if name and node["Actual Loops"] else ""
