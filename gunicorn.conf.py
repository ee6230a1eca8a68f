"""How gunicorn serves the app: processes and threads from the settings, everything else fixed here with its reason."""

import os
import sys

from todo_service.config import SettingsError, load

try:
    settings = load()
except SettingsError as error:
    sys.exit(str(error))

wsgi_app = "wsgi:app"
bind = f"{settings.host}:{settings.port}"
worker_class = "gthread"
workers = settings.workers
threads = settings.threads
# The heartbeat: a worker that gives no sign of life this long is killed. No limit on requests, whose deadlines are
# those of the database (todo_service/db.py).
timeout = 30
# On SIGTERM: how long requests that are under way may take to finish.
graceful_timeout = 30
# Longer than the 60 s of common load balancers, so that it is they who close a connection that lies idle.
keepalive = 65
# The heartbeat is a file: on a disk it could block, and a read-only root has no place for it.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108
# It would listen in $HOME, which a container may not have.
control_socket_disable = True
forwarded_allow_ips = settings.forwarded_allow_ips
# Requests are logged by the app, with the user and the request id.
accesslog = None
loglevel = settings.log_level.lower()
