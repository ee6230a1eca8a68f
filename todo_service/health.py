"""Is the service alive, and can it serve? For the load balancer, the container's health check and the operator."""

from flask import Blueprint, Response, request
from sqlalchemy import column, select, table

from .db import database
from .diagnosis import not_migrated
from .errors import Unavailable
from .etags import answer
from .models import REVISION, VERSION_TABLE
from .statements import Query

blueprint = Blueprint("health", __name__, url_prefix="/health")

SCHEMA = Query(select(column("version_num")).select_from(table(VERSION_TABLE)))
# In a request's environ: whether the process that answers it has been told to stop (`worker.py`).
STOPPING = "todo_service.stopping"


@blueprint.get("/live")
def live() -> Response:
    """The process answers; says nothing of the database, so that its outage restarts no containers."""
    return answer({"status": "ok"})


@blueprint.get("/ready")
def ready() -> Response:
    """The database answers too, with a schema that is not older than the code, and the service isn't about to stop.

    Otherwise 503, and no traffic should come here. A newer schema will do: migrations add before they take away.
    """
    if request.environ.get(STOPPING):
        raise Unavailable("The service is stopping.")
    [found] = max(database().unscoped(SCHEMA), default=("",))
    if found < REVISION:
        raise not_migrated(f"found revision {found or 'none'}, needed is {REVISION}.")
    return answer({"status": "ok"})
