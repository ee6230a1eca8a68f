"""Take the README's picture of the documentation: `python -m tests.screenshot` writes docs/swagger-ui.png."""

import logging
import threading

from werkzeug.serving import make_server

from tests.browser import chromium
from tests.conftest import settings_for
from todo_service import create_app
from todo_service.config import ROOT

PICTURE = ROOT / "docs" / "swagger-ui.png"
WIDTH = 1280


def main() -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    # The pages need no database; nothing connects to this one.
    app = create_app(settings_for("postgresql://nowhere.invalid", log_level="ERROR"))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with chromium() as browser:
        page = browser.new_page(viewport={"width": WIDTH, "height": 800})
        page.goto(f"http://127.0.0.1:{server.port}/api/docs")
        page.locator("#operations-tasks-listTasks").wait_for()
        PICTURE.parent.mkdir(exist_ok=True)
        page.screenshot(path=PICTURE, full_page=True)
    server.shutdown()
    thread.join()


if __name__ == "__main__":
    main()
