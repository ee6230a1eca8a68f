"""The statements that a request sends, as they are sent, and PostgreSQL's account of what they cost.

psycopg2 tells what it has put on the wire; so whatever the service does to its statements on the way is in it.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg2.extensions
from sqlalchemy import event

from todo_service.db import Database

EXPLAIN = "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) "
# What goes ahead of a statement: whose rows it may see, and its deadlines.
MESSAGE = re.compile(r"((?:(?:BEGIN|SET [^;]+); )*)(.*)", flags=re.DOTALL)


class Cost(NamedTuple):
    """Of all the statements of one operation: planning and execution, pages read and spilled, how tables were read."""

    milliseconds: float
    pages: int
    spilled: int
    scans: frozenset[str]


class Recorder:
    """Keeps what a database's connections send."""

    def __init__(self, db: Database) -> None:
        self.sent: list[str] = []
        sent = self.sent

        class Recording(psycopg2.extensions.cursor):
            def execute(self, query: Any, vars: Any = None) -> None:
                super().execute(query, vars)
                sent.append((self.query or b"").decode())

        event.listen(db.pool, "connect", lambda connection, _record: setattr(connection, "cursor_factory", Recording))
        db.pool.dispose()

    def taken(self) -> list[str]:
        """What was sent since the last time, without the ends of transactions."""
        messages = [message for message in self.sent if message not in ("COMMIT", "ROLLBACK")]
        self.sent.clear()
        return messages


def cost(cursor: psycopg2.extensions.cursor, messages: list[str]) -> Cost:
    """What `messages` cost. Whatever they change is undone."""
    accounts = [explained(cursor, message) for message in messages]
    roots = [account["Plan"] for account in accounts]
    return Cost(
        sum(account["Planning Time"] + account["Execution Time"] for account in accounts),
        sum(root["Shared Hit Blocks"] + root["Shared Read Blocks"] for root in roots),
        sum(root["Temp Written Blocks"] for root in roots),
        frozenset(scan(node) for root in roots for node in nodes(root) if "Scan" in node["Node Type"]) - {""},
    )


def explained(cursor: psycopg2.extensions.cursor, message: str) -> dict[str, Any]:
    found = MESSAGE.fullmatch(message)
    assert found
    cursor.execute(found[1].replace("BEGIN; ", "") + EXPLAIN + found[2])
    [[[plan]]] = cursor.fetchall()
    cursor.connection.rollback()
    account: dict[str, Any] = plan
    return account


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


def scan(node: dict[str, Any]) -> str:
    """How a table or an index is read; nothing for what is read from memory. A node that never ran doesn't count."""
    name = node.get("Index Name") or node.get("Relation Name")
    return f"{node['Node Type']} {name}" if name and node["Actual Loops"] else ""
