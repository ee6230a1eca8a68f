"""What a WSGI server imports: `gunicorn -c gunicorn.conf.py wsgi:app`, and `flask` for the commands."""

import sys

from todo_service import create_app
from todo_service.config import SettingsError

try:
    app = create_app()
except SettingsError as error:
    sys.exit(str(error))
