"""A PostgreSQL to measure on: the bundled one, set up for a large database.

Its data lie in a folder that is removed at the end, unless the caller names one to keep.
"""

import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg2

from todo_service.db import embedded

# Memory as on a server of 16 GB, and the planner told that the disk has no arm to move, as every operator's guide says.
# What keeps data through a crash is off: after one they are thrown away.
SETTINGS = {
    "shared_buffers": "4GB",
    "effective_cache_size": "12GB",
    "random_page_cost": "1.1",
    "max_wal_size": "8GB",
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
}
SHOWN = ("server_version", "jit", "work_mem", *SETTINGS)


@contextmanager
def bundled(folder: Path | None, settings: Mapping[str, str] = SETTINGS) -> Iterator[str]:
    """The bundled PostgreSQL for the length of a block; its data in `folder`, or in one that is removed then."""
    # Ended so, it takes the server along, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    place = folder or Path(tempfile.mkdtemp(prefix="todo-growth-"))
    place.mkdir(parents=True, exist_ok=True)
    place.chmod(0o755)
    try:
        server = embedded.start(place)
        for name, value in settings.items():
            execute(server.url, f"ALTER SYSTEM SET {name} = '{value}'")
        server.stop()
        server = embedded.start(place)
        try:
            yield server.url
        finally:
            server.stop()
    finally:
        if folder is None:
            shutil.rmtree(place)


def execute(url: str, sql: str) -> None:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(sql)


def make_database(server: str, name: str) -> tuple[str, bool]:
    """The database `name` on `server`, and whether it had to be made."""
    with closing(psycopg2.connect(server)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
        missing = cursor.fetchone() is None
        if missing:
            cursor.execute(f"CREATE DATABASE {name}")
    return urlunsplit(urlsplit(server)._replace(path=f"/{name}")), missing


def facts(url: str) -> dict[str, Any]:
    """What figures depend on: version, settings, sizes in bytes."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY(%s)", [[*SHOWN]])
        settings = dict(cursor.fetchall())
        cursor.execute(
            """SELECT relname, pg_relation_size(oid) FROM pg_class
               WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i') ORDER BY 2 DESC"""
        )
        return {"settings": settings, "bytes": dict(cursor.fetchall())}
