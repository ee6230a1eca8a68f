"""Is the service alive, and can it serve? For the load balancer, the container's health check and the operator."""

import mmap

from flask import Blueprint, Response
from sqlalchemy import literal, select

from .db import database
from .errors import Unavailable
from .etags import answer
from .statements import Query

blueprint = Blueprint("health", __name__, url_prefix="/health")

PING = Query(select(literal(1)))
# In a request's environ: whether the process that answers it has been told to stop (`worker.py`).
STOPPING = "todo_service.stopping"
# One byte, which a server's first process shares with all that it forks: 1 from when the service is about to stop.
STOP = mmap.mmap(-1, 1)


@blueprint.get("/live")
def live() -> Response:
    """The process answers; says nothing of the database, so that its outage restarts no containers."""
    return answer({"status": "ok"})


@blueprint.get("/ready")
def ready() -> Response:
    """The database answers too, and the service isn't about to stop; otherwise 503, and no traffic should come here."""
    if STOP[0]:
        raise Unavailable("The service is stopping.")
    database().unscoped(PING)
    return answer({"status": "ok"})
