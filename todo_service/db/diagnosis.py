"""What PostgreSQL's errors mean: the answer for the client, and a line for the operator: what is wrong, what to do.

The line holds the server's or libpq's own sentence, which names hosts, roles and tables but never a password.
"""

import re

import psycopg2
from psycopg2.errors import (
    CheckViolation,
    InsufficientPrivilege,
    InvalidParameterValue,
    UndefinedColumn,
    UndefinedTable,
)
from sqlalchemy import Select, column, select, table

from ..errors import Conflict, DatabaseUnavailable, Invalid, Problem
from .models import CONSTRAINT_PROBLEMS, ROLE, VERSION_TABLE, Base
from .session import Session

SCHEMA: Select[str] = select(column("version_num")).select_from(table(VERSION_TABLE))

# What another request with the same Idempotency-Key fails with while the first one runs (`http/idempotency.py`).
CLAIMED = "TD409"

CHECK = "Check the address, the user and the password in {}, and that the database runs and exists."
# What the database must have; a bug that asks for something else is no matter of migrations.
OURS = {VERSION_TABLE} | {name for table in Base.metadata.tables.values() for name in (table.name, *table.c.keys())}

# Beside its code for a lost connection, how Citus tells of a node that was lost in the middle of a transaction.
ESSENTIAL = "failure on connection marked as essential"

LATE = ("The database took too long; nothing was changed, please try again.", "statement given up: {}")
LOST = (
    "The connection to a part of the database was lost; please try again.",
    "a node of the database is lost to the others: {} See whether it runs, and whether they reach it.",
)
RETRY = ("The database could not do this now; nothing was changed, please try again.", "the database refuses: {}")
# What is said to the client and to the operator: by SQLSTATE, or its first two characters (PostgreSQL, appendix A).
REFUSALS = {
    "08006": LOST,
    "55P03": LATE,
    "57014": LATE,
    "25006": (
        "The database takes no changes at the moment; please try again.",
        "the database takes no changes: {} Is DATABASE_URL that of a replica?",
    ),
    "42501": (
        "The database can't be used at the moment; please try again.",
        "the database refuses: {} The user in DATABASE_URL must be the one that migrated, or that of deploy/roles.sql.",
    ),
    "53": (
        "The database has no room left; nothing was changed, please try again later.",
        "the database has no room left: {} Make room on its disk, or give it more.",
    ),
    "58": (
        "The database has trouble with its disk; nothing was changed, please try again later.",
        "the database has trouble with its disk: {} See its own log.",
    ),
}


def unreachable(error: Exception, advice: str = CHECK.format("DATABASE_URL")) -> DatabaseUnavailable:
    """There is no connection to be had."""
    return DatabaseUnavailable(
        "The database cannot be reached; please try again.",
        f"the database cannot be reached: {sentence(error)} {advice}",
    )


def schema_revision(session: Session) -> str | None:
    """The revision that the database's schema has; `session` is unscoped. Raises Unavailable where there is none."""
    return max(session.execute(SCHEMA).scalars(), default=None)


def not_migrated(found: str) -> DatabaseUnavailable:
    """The schema is missing, or older than the code; `found`: how that came out."""
    advice = "the database's schema is missing or older than this service: run `flask --app wsgi migrate`."
    return DatabaseUnavailable(advice.capitalize(), f"{found} So {advice}")


def refusal(error: psycopg2.Error) -> Problem | None:
    """What the server's answer to a statement means; None for a bug, and for a connection that is lost.

    Nothing was done, as the server has said so; and the connection is as good as before.
    """
    if not answered(error):
        return None
    if isinstance(error, CheckViolation):
        meant = CONSTRAINT_PROBLEMS.get(broken_rule(error))
        return Invalid([meant]) if meant else None
    if lacks_ours(error):
        return not_migrated(sentence(error))
    # The second wall (row-level security) refuses by the same code, and means a bug.
    if isinstance(error, InsufficientPrivilege) and error.diag.source_function == "ExecWithCheckOptions":
        return None
    code = "08006" if ESSENTIAL in (error.diag.message_primary or "") else error.pgcode or ""
    if code == CLAIMED:
        return Conflict("A request with this Idempotency-Key is still running; please try again in a moment.")
    known = REFUSALS.get(code) or REFUSALS.get(code[:2]) or (isinstance(error, psycopg2.OperationalError) and RETRY)
    return DatabaseUnavailable(known[0], known[1].format(sentence(error))) if known else None


def broken_rule(error: CheckViolation) -> str:
    """The constraint's name. What a node answers to another has it in its sentence only, perhaps with a number behind.

    "new row for relation "tasks_102008" violates check constraint "tasks_recurrence_due""
    """
    named = re.findall(r'"(\w+?)(?:_\d+)?"', error.diag.message_primary or "")
    return error.diag.constraint_name or (named[-1] if named else "")


def lacks_ours(error: psycopg2.Error) -> bool:
    """Whether it is a table, a column or the role of ours that the database doesn't have."""
    named = set(re.findall(r"\w+", error.diag.message_primary or ""))
    if isinstance(error, UndefinedTable | UndefinedColumn):
        return bool(named & OURS)
    return isinstance(error, InvalidParameterValue) and ROLE in named


def answered(error: psycopg2.Error) -> bool:
    """Whether this is the server's answer to a statement, after which the connection goes on; not what ended it."""
    return error.diag.severity_nonlocalized == "ERROR"


def explained(error: Exception) -> str:
    """A failed command's line: of a Problem, or of an error of the driver, which SQLAlchemy may have wrapped."""
    error = getattr(error, "orig", None) or error
    if isinstance(error, psycopg2.OperationalError) and not answered(error):
        error = unreachable(error)
    elif isinstance(error, psycopg2.Error):
        error = refusal(error) or error
    return getattr(error, "reason", None) or sentence(error)


def sentence(error: BaseException) -> str:
    """What the error says of itself: one line, with a full stop or the like at its end."""
    said = error.diag.message_primary if isinstance(error, psycopg2.Error) else None
    line = " ".join((said or str(error) or type(error).__name__).split())
    return line if line[-1] in ".?!" else f"{line}."
