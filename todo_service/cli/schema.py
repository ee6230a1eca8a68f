"""`flask migrate`: the database's schema, brought to the revision that this code is written for, or to another one."""

import sys
import time
from collections.abc import Callable
from itertools import count
from typing import Any

import click
from flask.cli import with_appcontext
from psycopg2.errors import LockNotAvailable
from sqlalchemy.exc import OperationalError

from ..config import ROOT
from ..db.diagnosis import schema_revision
from ..db.engine import address
from ..db.models import REVISION
from ..errors import Unavailable
from .base import Command, settings, unscoped

# Between two tries to lock a table, in which those who have waited behind the first are served.
PAUSE_SECONDS = 1


@click.command(cls=Command)
@click.option("--check", is_flag=True, help="Change nothing; exit status 1 unless the schema is the one needed.")
@click.option("--to", "target", metavar="REVISION", help="Bring it to this revision instead, be it an older one.")
@click.option("--yes", is_flag=True, help="Don't ask before what newer revisions have brought is dropped.")
@with_appcontext
def migrate(check: bool, target: str | None, yes: bool) -> None:
    """Bring the database's schema up to date."""
    if check:
        with unscoped() as session:
            compare(schema_revision(session))
    elif target is not None:
        move(address(settings()), target, yes)
    else:
        found = upgrade(address(settings()))
        if found == REVISION:
            done = f"up to date: revision {found}"
        elif found and found > REVISION:
            done = f"newer than this service, and left as it is: revision {found}, needed is {REVISION}"
        else:
            done = f"migrated: from {f'revision {found}' if found else 'nothing'} to revision {REVISION}"
        click.echo(f"the schema is {done}")


def compare(found: str | None) -> None:
    """Raises ClickException unless it is the revision needed."""
    if found is None or found < REVISION:
        advice = "run `flask --app wsgi migrate` before this release serves"
        raise click.ClickException(f"the schema is behind: found {found or 'none'}, needed is {REVISION}; {advice}")
    if found > REVISION:
        advice = "this release can serve, but a newer one has migrated"
        raise click.ClickException(f"the schema is ahead: found {found}, needed is {REVISION}; {advice}")
    click.echo(f"the schema is the one needed: revision {found}")


def move(url: str, target: str, yes: bool) -> None:
    """Raises ClickException for revisions that there are not."""
    known = revisions()
    if target not in known:
        raise click.ClickException(f"there is no revision {target}; there are {', '.join(known)}")
    try:
        with unscoped() as session:
            found = schema_revision(session)
    except Unavailable:
        # There is no schema yet; if it is something else, the migration says so.
        found = None
    if found and found not in known:
        raise click.ClickException(f"revision {found} is none of this release's; take the one that has migrated")
    if found and target < found:
        if not yes:
            click.confirm(f"What came after revision {target} is dropped with all that is in it. Go on?", abort=True)
        downgrade(url, target)
    else:
        upgrade(url, target)
    click.echo(f"the schema is at revision {target}; it was at {found or 'none'}")


def upgrade(url: str, target: str = "head") -> str | None:
    """Apply the migrations that are missing; the revision that was there. Waits for another process that is at it."""
    # Large, and nothing that a server needs.
    from alembic import command

    return patiently(command.upgrade, target, url=url)


def downgrade(url: str, target: str) -> None:
    """Take back the migrations after `target`."""
    from alembic import command

    patiently(command.downgrade, target, url=url, back=True)


def patiently(move: Callable[[Any, str], None], target: str, **attributes: Any) -> str | None:
    """Try until it is done; the revision that was there.

    A migration doesn't wait for long behind who uses its table, such as a dump: whoever comes later would, behind it.
    """
    config = alembic_config()
    config.attributes.update(attributes, done=tell)
    for tried in count(1):
        try:
            move(config, target)
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable):
                raise
            if tried == 1:
                click.echo("a table is in use by a long transaction; trying again until that ends", err=True)
            time.sleep(PAUSE_SECONDS)
        else:
            break
    found: str | None = config.attributes["found"]
    return found


def tell(*, step: Any, **_: Any) -> None:
    """Show on a terminal that a revision is there, or gone; an index of a large table takes its time."""
    if sys.stderr.isatty():
        click.echo(f"revision {step.up_revision_id} is {'there' if step.is_upgrade else 'gone'}", err=True)


def revisions() -> list[str]:
    """All that there are, the oldest first."""
    from alembic.script import ScriptDirectory

    return sorted(script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions())


def alembic_config() -> Any:
    """Alembic's Config, with where the migrations are."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    return config
