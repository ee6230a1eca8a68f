"""Take the README's pictures, of the documentation and the example: `python -m tests.support.screenshot`, into docs/.

`python -m tests.support.screenshot example` takes that one only.
"""

import base64
import logging
import secrets
import sys
import tempfile
import threading
from contextlib import ExitStack
from datetime import date, timedelta
from pathlib import Path

from playwright.sync_api import Browser, Page
from werkzeug.serving import make_server

from tests.conftest import settings_for
from tests.support.browser import chromium
from tests.support.live import Service
from tests.support.nextapp import App, built
from tests.support.servers import free_port
from todo_service import cli, create_app
from todo_service.config import ROOT
from todo_service.db import embedded

DOCS = ROOT / "docs"
WIDTH = 1280
# Title, and in how many days it is due.
TASKS = (
    ("Water the plants", 0),
    ("Send the invoice to Harbour & Sons", -2),
    ("Book the train to Lisbon", 6),
    ("Buy oat milk", None),
    ("Call the dentist", 1),
)


def documentation(browser: Browser) -> None:
    """Swagger UI."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    # The pages need no database; nothing connects to this one.
    app = create_app(settings_for("postgresql://nowhere.invalid", log_level="ERROR"))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    page = browser.new_page(viewport={"width": WIDTH, "height": 800})
    page.goto(f"http://127.0.0.1:{server.port}/api/docs")
    page.locator("#operations-tasks-listTasks").wait_for()
    page.screenshot(path=DOCS / "swagger-ui.png", full_page=True)
    server.shutdown()
    thread.join()


def example(browser: Browser) -> None:
    """The app of `examples/nextjs`, on a desk and beside it, dark, on a phone."""
    secret, port = secrets.token_urlsafe(32), free_port()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)
        database = embedded.start(folder)
        stack.callback(database.stop)
        cli.upgrade(database.url)
        service = stack.enter_context(Service(database.url, secret, BETTER_AUTH_URL=f"http://localhost:{port}"))
        stack.enter_context(built(service.url, secret))
        app = stack.enter_context(App(port, TASKS_URL=service.url, BETTER_AUTH_SECRET=secret))
        page = browser.new_page(viewport={"width": 800, "height": 760})
        page.goto(app.url)
        fill(page)
        desk = page.screenshot()
        page.set_viewport_size({"width": 390, "height": 760})
        page.emulate_media(color_scheme="dark")
        phone = page.screenshot()
    page.set_viewport_size({"width": WIDTH, "height": 840})
    page.emulate_media(color_scheme="light")
    page.set_content(
        "<body style='margin: 0; height: 840px; background: #d9dce6; display: flex; gap: 30px; place-items: center;"
        " justify-content: center'>"
        + "".join(
            f"<img style='border-radius: 16px' src='data:image/png;base64,{base64.b64encode(png).decode()}'>"
            for png in (desk, phone)
        )
    )
    page.screenshot(path=DOCS / "example.png")


def fill(page: Page) -> None:
    """Sign up, and have some tasks."""
    page.get_by_role("button", name="Create an account").click()
    for label, text in (("Name", "Ann"), ("E-mail", "ann@example.com"), ("Password", "correct horse")):
        page.get_by_label(label).fill(text)
    page.get_by_role("button", name="Sign up").click()
    page.get_by_text("Saved").wait_for()
    for title, days in TASKS:
        page.get_by_label("New task").fill(title)
        page.get_by_label("Due date").fill("" if days is None else (date.today() + timedelta(days)).isoformat())
        page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_label("Done: Buy oat milk").click()
    page.get_by_role("button", name="Edit Book the train").click()
    page.get_by_label("Notes").fill("Window seat, before nine")
    page.get_by_label("Priority").select_option("high")
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("Saved").wait_for()
    # Nothing has the focus in a picture.
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")


def main() -> None:
    with chromium() as browser:
        if "example" not in sys.argv:
            documentation(browser)
        example(browser)


if __name__ == "__main__":
    main()
