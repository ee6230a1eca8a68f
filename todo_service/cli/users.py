"""What an operator is asked about one user: `flask user`, `flask export-user`, `flask forget`."""

import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from flask.cli import with_appcontext

from ..api.transfer import TYPES, put_aside
from ..schemas.tasks import task_out
from ..tasks import retention
from ..tasks.kept import kept
from ..tasks.queries import TaskRow
from .base import Command, progress, session_of


@click.command(cls=Command)
@click.argument("user_id")
@with_appcontext
def user(user_id: str) -> None:
    """Tell what is kept of USER_ID: how much, since when, how large; nothing of what it says."""
    with session_of(user_id) as session:
        found = kept(session)
    if found is None:
        click.echo(f"nothing is kept of a user {user_id}")
        return
    live = found.pending + found.completed
    click.echo(f"{live} tasks, of which {found.completed} are completed; {found.trashed} in the trash")
    click.echo(f"{found.tombstones} tombstones, {found.answers} Idempotency-Keys")
    if found.first:
        click.echo(f"first created {found.first:%Y-%m-%d %H:%M} UTC, last changed {found.last:%Y-%m-%d %H:%M} UTC")
    click.echo(f"{found.revision} changes in all; {found.size / 1024:,.0f} KiB in the table of tasks")


@click.command("export-user", cls=Command)
@click.argument("user_id")
@click.option("--format", "form", type=click.Choice(list(TYPES)), default="json", show_default=True)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="The file; otherwise standard output.")
@with_appcontext
def export_user(user_id: str, form: str, output: Path | None) -> None:
    """Write all tasks of USER_ID into a file, as an export of theirs would have them."""
    with session_of(user_id) as session:
        found = kept(session)
        number = found.pending + found.completed + (found.trashed if form == "json" else 0) if found else 0
        with progress("tasks", number) as done:

            def out(row: TaskRow) -> dict[str, Any]:
                done(1)
                return task_out(row)

            file = put_aside(session, form, datetime.now(UTC), out)
    with file:
        file.seek(0)
        if output is None:
            shutil.copyfileobj(file, sys.stdout.buffer)
            return
        try:
            with output.open("xb") as target:
                shutil.copyfileobj(file, target)
        except OSError as error:
            raise click.ClickException(f"{output} can't be written: {error.strerror}") from None
    click.echo(f"written to {output}")


@click.command(cls=Command)
@click.argument("user_id")
@click.option("--yes", is_flag=True, help="Don't ask.")
@with_appcontext
def forget(user_id: str, yes: bool) -> None:
    """Remove everything of USER_ID, who deleted their account. To repeat it is no failure."""
    if not yes:
        click.confirm(f"Everything of {user_id} is removed for good. Go on?", abort=True)
    with session_of(user_id) as session:
        removed = retention.forget(session)
    click.echo(f"removed all of {user_id}: {removed}" if removed else f"nothing is kept of a user {user_id}")
