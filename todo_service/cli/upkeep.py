"""What an operator runs now and then: `flask check`, `flask purge` (daily), `flask renew` (after a restore)."""

from collections.abc import Callable

import click
from flask import current_app
from flask.cli import with_appcontext
from limits.errors import StorageError
from sqlalchemy import Boolean, Text, func, literal_column, select

from ..db.diagnosis import explained, schema_revision
from ..db.models import REVISION, ROLE, owners
from ..db.replica import Replica
from ..db.session import Session
from ..http.rate_limit import Limiter
from ..http.tokens.authenticator import Authenticator
from ..http.tokens.keys import fetch
from ..tasks import renewal, retention
from .base import Command, progress, session_of, settings, unscoped


@click.command(cls=Command)
@with_appcontext
def purge() -> None:
    """Remove what is kept for a while only and whose time is over. For cron; may run on several machines at once."""
    with unscoped() as session:
        with progress("rows") as done:
            trash, tombstones, answers = retention.purge(session, done)
        left = retention.due(session)
    click.echo(f"{trash} tasks removed for good, {tombstones} tombstones dropped, {answers} Idempotency-Keys forgotten")
    if any(left):
        click.echo(f"left for the next run, as their users were busy: {left}")


@click.command(cls=Command)
@with_appcontext
def renew() -> None:
    """End all ETags and sync tokens given out so far. For a database that was restored from a backup."""
    with unscoped() as session, progress("users") as done:
        renewed = renewal.renew(session, done)
    click.echo(f"{renewed} users renewed: their clients read lists anew, and sync from the start")


@click.command(cls=Command)
@with_appcontext
def check() -> None:
    """Try all that the service needs: a line for each. Exit status 1 if something fails."""
    failed = 0
    for name, tried in (
        ("settings", lambda: "read, and good"),
        ("database", database),
        ("schema", schema),
        ("roles", roles),
        ("replica", replica),
        ("key server", key_server),
        ("Redis", redis),
    ):
        good, said = outcome(tried)
        failed += not good
        click.echo(f"{'ok    ' if good else 'FAILED'}  {name}: {said}")
    if failed:
        raise click.exceptions.Exit(1)


def outcome(tried: Callable[[], str]) -> tuple[bool, str]:
    try:
        return True, tried()
    except click.ClickException as error:
        return False, error.message
    except Exception as error:  # whatever it is, the other lines are to be seen, too
        return False, explained(error)


def database() -> str:
    with unscoped() as session:
        return str(session.execute(select(func.version(type_=Text))).scalar_one().partition(" on ")[0])


def schema() -> str:
    with unscoped() as session:
        found = schema_revision(session)
    if found is None or found < REVISION:
        raise click.ClickException(f"found {found or 'none'}, needed is {REVISION}: run `flask --app wsgi migrate`")
    return f"revision {found}" + ("" if found == REVISION else f", newer than the needed {REVISION}")


def roles() -> str:
    """Requests can take on the role without rights of its own; and whether the connection's own user has too many."""
    with session_of("nobody") as session:
        session.execute(select(func.count()).select_from(owners).where(owners.c.user_id == session.owner))
    with unscoped() as session:
        own = literal_column("(SELECT rolsuper FROM pg_roles WHERE rolname = current_user)", Boolean)
        user, superuser = session.execute(select(literal_column("current_user", Text), own)).one()
    warning = "; it is a superuser, which the service doesn't need (deploy/roles.sql)" if superuser else ""
    return f"{user} may act as {ROLE}{warning}"


def replica() -> str:
    """It has the service's tables, and follows."""
    found: Replica | None = current_app.extensions["replica"]
    if found is None:
        return "none is configured; all is read from the database"
    behind = "extract(epoch FROM now() - pg_last_xact_replay_timestamp())"
    with Session(found.engine, unscoped=True) as session:
        follows, seconds = session.execute(select(func.pg_is_in_recovery(), literal_column(behind))).one()
        revision = schema_revision(session)
    if not follows:
        raise click.ClickException("what is at DATABASE_READ_URL follows no other database")
    return f"revision {revision}; its last change is {float(seconds or 0):.0f} s old"


def key_server() -> str:
    authenticator: Authenticator = current_app.extensions["authenticator"]
    if authenticator.keys is None:
        return "none is configured; tokens are verified by the secret"
    url = authenticator.keys.url
    return f"{len(fetch(url))} keys at {url}"


def redis() -> str:
    if settings().rate_limit_storage.startswith("memory:"):
        return "none is configured; each process counts requests for itself"
    limiter: Limiter = current_app.extensions["limiter"]
    try:
        limiter.hit("check", 1)
    except StorageError as error:
        raise click.ClickException(f"it doesn't answer: {error}") from None
    return "counts requests"
