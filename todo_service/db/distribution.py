"""The tables spread over the nodes of a Citus cluster, by user: what `flask distribute` does, and what is left to do.

What an operator does on the nodes, docs/scaling.md tells. Sessions find out by themselves that there are nodes, and
statements look the same wherever the rows are; neither needs anything of this module.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg2

from .models import ROLE, SCHEMA_LOCK, answers, owners, tasks, tombstones

# The others lie where their owner is.
TABLES = tuple(table.name for table in (owners, tasks, tombstones, answers))
Cursor = Any

EXTENSION = "SELECT FROM pg_extension WHERE extname = 'citus'"
DISTRIBUTED = "SELECT table_name::text FROM citus_tables WHERE table_name::text = ANY(%(tables)s)"
DISTRIBUTE = "SELECT create_distributed_table(%(table)s, 'user_id', colocate_with => %(beside)s)"
# The scope of a transaction goes along to the nodes that it gets to; from the next connection on.
PROPAGATE = "ALTER DATABASE {} SET citus.propagate_set_commands = 'local'"
COORDINATOR = "SELECT FROM pg_dist_node WHERE groupid = 0 AND nodename <> 'localhost'"
WORKERS = "SELECT nodename || ':' || nodeport, isactive FROM pg_dist_node WHERE groupid <> 0 AND noderole = 'primary'"


@contextmanager
def cluster(url: str) -> Iterator[Cursor | None]:
    """A transaction in the database at `url`, without deadlines, as tables may be large; None if it can have no nodes.

    Two at once come one after the other, and after a migration.
    """
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (SCHEMA_LOCK,))
        cursor.execute(EXTENSION)
        yield cursor if cursor.rowcount else None


def distributed(cursor: Cursor) -> set[str]:
    """Those of TABLES that are."""
    cursor.execute(DISTRIBUTED, {"tables": list(TABLES)})
    return {name for (name,) in cursor.fetchall()}


def distribute(cursor: Cursor) -> Iterator[str]:
    """Do what is missing; the tables, each when it is spread."""
    known = distributed(cursor)
    for table in TABLES:
        if table not in known:
            cursor.execute(DISTRIBUTE, {"table": table, "beside": "default" if table == TABLES[0] else TABLES[0]})
            yield table
    cursor.execute(f"ALTER ROLE {ROLE} LOGIN")
    cursor.execute("SELECT quote_ident(current_database())")
    cursor.execute(PROPAGATE.format(*cursor.fetchone()))


def state(cursor: Cursor) -> Iterator[tuple[str, str | None]]:
    """What there must be, and what is to be done for it; None: it's there."""
    cursor.execute(COORDINATOR)
    todo = "here, SELECT citus_set_coordinator_host('…') with its name as the nodes reach it"
    yield "the nodes know the coordinator's address", None if cursor.rowcount else todo
    cursor.execute(WORKERS)
    workers = cursor.fetchall()
    todo = "on each node CREATE DATABASE and CREATE EXTENSION citus; then here SELECT citus_add_node('…', 5432)"
    yield f"{len(workers)} nodes", None if workers else todo
    if waiting := [name for name, active in workers if not active]:
        yield "all nodes are active", f"SELECT citus_activate_node(…) for {', '.join(waiting)}"
    missing = [table for table in TABLES if table not in distributed(cursor)]
    yield f"{', '.join(TABLES)} lie on the nodes", f"run `flask --app wsgi distribute`: {missing}" if missing else None
    cursor.execute("SELECT current_setting('citus.propagate_set_commands', true), rolcanlogin FROM pg_roles "
                   "WHERE rolname = %s", (ROLE,))  # fmt: skip
    passed_on, may = cursor.fetchone()
    todo = "run `flask --app wsgi distribute`, then connect anew"
    yield f"{ROLE} may log in, and its scope goes along", None if may and passed_on == "local" else todo
    yield f"{ROLE} gets at every node", "ask again when the tables lie there" if missing else unreachable(cursor)


def unreachable(cursor: Cursor) -> str | None:
    """What is in the way of a request that asks all nodes; None: nothing. Ends what the transaction can do."""
    try:
        # Two messages: see `session.py`.
        cursor.execute(f"SET LOCAL ROLE {ROLE}")
        cursor.execute("SELECT count(*) FROM owners")
    except psycopg2.Error as error:
        said = " ".join((error.diag.message_primary or str(error)).split())
        return f"let the nodes authenticate it to each other (pg_hba.conf, .pgpass): {said}"
    return None
