"""The example app in Chromium, as its users use it: the real Next.js, Better Auth and service, and no answer made up.

What breaks on the way is made to break: the network, an answer that gets lost, a refusal for being too fast.
"""

import base64
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import date, timedelta
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Response, Route, expect

from tests.conftest import SECRET, wait_for
from tests.support.browser import chromium
from tests.support.live import Service
from tests.support.nextapp import APP, App, built
from tests.support.servers import free_port
from todo_service.config import ROOT

# As short as they can be with 5 s kept for the way, and the service's leeway of 5 s more.
TOKEN_SECONDS = 12
LEEWAY_SECONDS = 5
POLL_SECONDS = 5
PASSWORD = "correct horse battery"
# What any test may wait for, on a machine that is busy with others.
expect.set_options(timeout=30_000)


class Example(NamedTuple):
    """`public`: tokens by the app's key, calls through its rewrites; `shared`: by the secret, and past them."""

    public: App
    shared: App
    service: Service


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def example(browser: Browser, database_url: str) -> Iterator[Example]:
    ports = free_port(), free_port()
    public, shared = (f"http://localhost:{port}" for port in ports)
    with ExitStack() as stack:
        service = stack.enter_context(Service(database_url, secrets.token_urlsafe(32), BETTER_AUTH_URL=public))
        by_secret = stack.enter_context(Service(database_url, SECRET, CORS_ORIGINS=shared))
        stack.enter_context(built(service.url, SECRET))
        environment = {"BETTER_AUTH_SECRET": SECRET, "TOKEN_LIFETIME": f"{TOKEN_SECONDS}s", "AUTH_RATE_LIMIT": "off"}
        first = App(ports[0], TASKS_URL=service.url, **environment)
        direct = {"TASKS_URL": by_secret.url, "TASKS_PUBLIC_URL": by_secret.url, "TASKS_TOKENS": "secret"}
        second = App(ports[1], **direct, **environment)
        yield Example(stack.enter_context(first), stack.enter_context(second), service)


class Tab:
    """A page of the app, with what a user does on it."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.trouble: list[str] = []
        self.answers: list[Response] = []
        page.on("pageerror", lambda error: self.trouble.append(str(error)))
        page.on("response", lambda answer: self.answers.append(answer))

    def sign_up(self, name: str) -> str:
        """A new account: its address."""
        email = f"{name.lower()}-{secrets.token_hex(6)}@example.com"
        self.page.goto(self.url)
        self.page.get_by_role("button", name="Create an account").click()
        self.page.get_by_label("Name").fill(name)
        self._enter(email, "Sign up")
        return email

    def sign_in(self, email: str) -> None:
        self.page.goto(self.url)
        self._enter(email, "Sign in")

    def _enter(self, email: str, button: str) -> None:
        self.page.get_by_label("E-mail").fill(email)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.get_by_role("button", name=button, exact=True).click()
        self.saved()

    def sign_out(self) -> None:
        self.page.get_by_role("button", name="Sign out").click()
        expect(self.page.get_by_role("heading", name="Sign in")).to_be_visible()

    def add(self, *titles: str) -> None:
        for title in titles:
            self.page.get_by_label("New task").fill(title)
            self.page.get_by_role("button", name="Add", exact=True).click()

    def edit(self, title: str, save: bool = True, **fields: str) -> None:
        """Open the task's form, and fill in what is given by its label."""
        self.page.get_by_role("button", name=f"Edit {title}").click()
        for label, text in fields.items():
            self.page.locator("form.edit").get_by_label(label.replace("_", " ")).fill(text)
        if save:
            self.save()

    def save(self) -> None:
        self.page.get_by_role("button", name="Save", exact=True).click()

    def delete(self, title: str) -> None:
        self.page.get_by_role("button", name=f"Delete {title}").click()

    def look(self) -> None:
        """Have the page look for news at once, as when its user comes back to it."""
        self.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")

    def saved(self) -> None:
        """Wait until all has been sent."""
        expect(self.page.locator(".sync")).to_have_text("Saved")

    @property
    def names(self) -> Locator:
        return self.page.locator(".task .name")

    def shows(self, *titles: str) -> None:
        """Wait until these are the tasks that are shown, in this order."""
        expect(self.names).to_have_text(list(titles))

    def count(self, path: str, status: int) -> int:
        return sum(answer.status == status and path in answer.url for answer in self.answers)

    def kept(self) -> list[dict[str, Any]]:
        """What the service has for this user, the trash as well: asked past all of the app's code."""
        token = self.page.evaluate("async () => (await (await fetch('/api/auth/token')).json()).token")
        tasks = []
        for deleted in ("false", "true"):
            address = f"{self.url}/api/tasks?deleted={deleted}&sort=position"
            request = Request(address, headers={"Authorization": f"Bearer {token}"})
            with urlopen(request, timeout=30) as response:
                tasks += json.load(response)
        return tasks


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context()
    yield context
    context.close()


@pytest.fixture
def open_tab(browser: Browser, example: Example) -> Iterator[Callable[..., Tab]]:
    """Opens a page: in a context of its own, like another computer, or in a `context` that is there. None may fail."""
    tabs: list[Tab] = []

    def open_tab(context: BrowserContext | None = None, app: App | None = None, **options: Any) -> Tab:
        page = context.new_page() if context else browser.new_page(**options)
        tabs.append(Tab(page, (app or example.public).url))
        return tabs[-1]

    yield open_tab
    for tab in tabs:
        tab.page.close()
        assert tab.trouble == []


Open = Callable[..., Tab]


def test_two_users_in_two_contexts(open_tab: Open) -> None:
    ann, bob = open_tab(), open_tab()
    ann.sign_up("Ann")
    bob.sign_up("Bob")
    ann.add("Ann's milk", "Ann's tea")
    bob.add("Bob's bread")
    for tab in (ann, bob):
        tab.saved()
    for tab in (ann, bob):
        tab.page.reload()
    ann.shows("Ann's milk", "Ann's tea")
    bob.shows("Bob's bread")
    assert [task["title"] for task in bob.kept()] == ["Bob's bread"]


def test_two_users_in_one_context_after_another(open_tab: Open, context: BrowserContext) -> None:
    tab = open_tab(context)
    email = tab.sign_up("Ann")
    tab.add("Ann's secret")
    tab.saved()
    tab.sign_out()
    assert tab.page.evaluate("localStorage.length") == 0
    tab.page.go_back()
    expect(tab.page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert "Ann's secret" not in tab.page.content()

    tab.sign_up("Bob")
    expect(tab.page.get_by_text("Nothing to do")).to_be_visible()
    tab.add("Bob's")
    tab.saved()
    tab.shows("Bob's")
    tab.sign_out()
    tab.sign_in(email)
    tab.shows("Ann's secret")


def test_a_tab_of_who_was_here_before_becomes_the_new_users(open_tab: Open, context: BrowserContext) -> None:
    """Its user has signed out in another tab, where somebody else signed in: what it does is nobody's but theirs."""
    before, after = open_tab(context), open_tab(context)
    before.sign_up("Ann")
    before.add("Ann's")
    before.saved()
    after.page.goto(after.url)
    after.sign_out()
    after.sign_up("Bob")
    after.add("Bob's")
    after.saved()
    before.page.bring_to_front()
    before.shows("Bob's")
    assert [task["title"] for task in after.kept()] == ["Bob's"]


def test_nothing_is_asked_by_who_is_signed_out(open_tab: Open) -> None:
    tab = open_tab()
    tab.sign_up("Ann")
    tab.page.context.clear_cookies()
    expect(tab.page.get_by_role("heading", name="Sign in")).to_be_visible()
    tab.answers.clear()
    time.sleep(POLL_SECONDS + 1)
    assert [answer.url for answer in tab.answers if "/api/" in answer.url] == []


def test_changes_of_another_device_appear(open_tab: Open) -> None:
    desk, phone = open_tab(), open_tab()
    email = desk.sign_up("Ann")
    phone.sign_in(email)
    desk.add("Milk", "Tea")
    phone.shows("Milk", "Tea")
    phone.page.get_by_label("Done: Milk").click()
    phone.delete("Tea")
    desk.shows("Milk")
    expect(desk.page.get_by_label("Done: Milk")).to_be_checked()


def test_tokens_are_renewed_unseen_and_polling_costs_little(open_tab: Open) -> None:
    tab = open_tab()
    tab.sign_up("Ann")
    tab.add("Milk")
    tab.saved()
    # In the page, with nothing done by the test meanwhile.
    tab.page.wait_for_timeout((TOKEN_SECONDS + LEEWAY_SECONDS + 4) * 1000)
    tab.add("Tea")
    tab.saved()
    tab.shows("Milk", "Tea")
    assert tab.count("/api/auth/token", 200) in (3, 4), "asked for when the last one was about to end, and not before"
    assert [answer.url for answer in tab.answers if answer.status in (401, 403)] == []
    assert tab.count("/api/tasks?limit=1", 304) >= 3, "the list was read again"
    assert tab.count("/api/tasks/changes", 200) <= 4


def test_offline_for_ten_changes_and_back(open_tab: Open) -> None:
    tab, other = open_tab(), open_tab()
    email = tab.sign_up("Ann")
    tab.add("Milk", "Tea", "Bread")
    tab.saved()
    tab.page.context.set_offline(True)
    expect(tab.page.locator(".sync")).to_have_text("Offline")
    tab.add("Apples", "Pears", "Plums")
    tab.edit("Apples", Notes="Red ones")
    tab.edit("Milk", Title="Oat milk")
    tab.page.get_by_label("Done: Pears").click()
    tab.page.get_by_label("Done: Tea").click()
    tab.page.get_by_role("button", name="Move Plums").press("ArrowUp")
    tab.delete("Bread")
    tab.delete("Apples")
    expect(tab.page.locator(".sync")).to_have_text("Offline · 10 changes to send")
    tab.shows("Oat milk", "Tea", "Plums", "Pears")

    tab.page.context.set_offline(False)
    tab.saved()
    tab.shows("Oat milk", "Tea", "Plums", "Pears")
    kept = [(task["title"], task["completed"], task["deleted_at"] is not None) for task in tab.kept()]
    live = [("Oat milk", False, False), ("Tea", True, False), ("Plums", False, False), ("Pears", True, False)]
    assert kept[:4] == live
    assert sorted(kept[4:]) == [("Apples", False, True), ("Bread", False, True)]
    other.sign_in(email)
    other.shows("Oat milk", "Tea", "Plums", "Pears")


def test_an_answer_that_gets_lost_makes_no_duplicate(open_tab: Open) -> None:
    """The network ends after the service has done it: the same change goes out again, with its key."""
    tab = open_tab()
    tab.sign_up("Ann")
    keys: list[str] = []

    def lose(route: Route) -> None:
        if route.request.method == "POST" and len(keys) < 2:
            keys.append(route.request.headers["idempotency-key"])
            route.fetch()
            route.abort("connectionreset")
        else:
            route.continue_()

    tab.page.route("**/api/tasks**", lose)
    tab.add("Once")
    expect(tab.page.locator(".sync")).to_have_text("Offline · 1 change to send")
    while len(keys) < 2:
        tab.look()
        tab.page.wait_for_timeout(100)
    tab.look()
    tab.saved()
    assert len(keys) == 2
    assert keys[0] == keys[1]
    assert [task["title"] for task in tab.kept()] == ["Once"]


def test_changes_outlive_the_tab_that_could_not_send_them(open_tab: Open, context: BrowserContext) -> None:
    tab = open_tab(context)
    tab.sign_up("Ann")
    context.set_offline(True)
    tab.add("Later")
    expect(tab.page.locator(".sync")).to_have_text("Offline · 1 change to send")
    tab.page.close()
    context.set_offline(False)
    again = open_tab(context)
    again.page.goto(again.url)
    again.saved()
    assert [task["title"] for task in again.kept()] == ["Later"]


def test_too_fast_is_waited_for(open_tab: Open) -> None:
    tab = open_tab()
    tab.sign_up("Ann")
    refused: list[float] = []

    def refuse(route: Route) -> None:
        if refused:
            return route.continue_()
        refused.append(time.monotonic())
        problem = json.dumps({"status": 429, "code": "rate-limited", "detail": "Too fast."})
        return route.fulfill(status=429, headers={"Retry-After": "2"}, body=problem)

    tab.page.route("**/api/tasks", refuse)
    tab.add("Patient")
    tab.saved()
    assert time.monotonic() - refused[0] >= 2
    expect(tab.page.get_by_role("alert").filter(has_text="Too fast.")).to_have_count(0)
    assert [task["title"] for task in tab.kept()] == ["Patient"]


def test_who_was_slower_is_told_and_may_insist(open_tab: Open) -> None:
    """Other fields than another device's changes go in beside them; the same one asks."""
    desk, phone = open_tab(), open_tab()
    email = desk.sign_up("Ann")
    desk.add("Milk")
    desk.saved()
    phone.sign_in(email)
    phone.shows("Milk")
    for tab, fields in ((desk, {"Title": "Oat milk"}), (phone, {"Title": "Soy milk", "Notes": "Two"})):
        tab.edit("Milk", save=False, **fields)
    desk.save()
    desk.saved()
    phone.save()
    banner = phone.page.locator(".banner")
    expect(banner).to_contain_text("“Milk” was changed elsewhere in the meantime.")
    phone.shows("Oat milk")
    banner.get_by_role("button", name="Save mine").click()
    expect(banner).to_have_count(0)
    phone.saved()
    desk.shows("Soy milk")

    desk.edit("Soy milk", save=False, Notes="Three")
    phone.edit("Soy milk", Title="Rice milk")
    phone.saved()
    desk.save()
    desk.saved()
    desk.shows("Rice milk")
    [task] = desk.kept()
    assert (task["title"], task["description"]) == ("Rice milk", "Three")


def test_refused_change_is_told(open_tab: Open) -> None:
    """What the page lets through and the service doesn't take is said in the service's own words."""
    tab = open_tab()
    tab.sign_up("Ann")
    tab.page.get_by_label("Due date").fill("1066-10-14")
    tab.add("Hastings", "Milk")
    expect(tab.page.locator(".banner")).to_contain_text("due_date: Must lie in the years 1970 to 9999")
    tab.saved()
    tab.shows("Milk")
    tab.page.get_by_role("button", name="Dismiss").click()
    expect(tab.page.locator(".banner")).to_have_count(0)


def test_delete_and_undo(open_tab: Open) -> None:
    tab = open_tab()
    tab.sign_up("Ann")
    tab.add("Milk", "Tea")
    tab.delete("Milk")
    tab.shows("Tea")
    undo = tab.page.get_by_role("button", name="Undo")
    expect(undo).to_be_focused()
    undo.press("Enter")
    tab.shows("Milk", "Tea")
    expect(undo).to_have_count(0)
    expect(tab.page.get_by_role("heading", name="Tasks")).to_be_focused()
    tab.edit("Milk", save=False)
    tab.page.keyboard.press("Escape")
    expect(tab.page.get_by_role("button", name="Edit Milk")).to_be_focused()
    tab.saved()
    assert [(task["title"], task["deleted_at"]) for task in tab.kept()] == [("Milk", None), ("Tea", None)]


def test_order_by_dragging_and_by_keys(open_tab: Open) -> None:
    tab = open_tab()
    tab.sign_up("Ann")
    tab.add("One", "Two", "Three", "Four")
    tab.saved()
    tab.shows("One", "Two", "Three", "Four")
    start = tab.page.get_by_role("button", name="Move Four").bounding_box()
    end = tab.page.get_by_role("button", name="Move One").bounding_box()
    assert start
    assert end
    mouse = tab.page.mouse
    mouse.move(start["x"] + start["width"] / 2, start["y"] + start["height"] / 2)
    mouse.down()
    mouse.move(end["x"] + end["width"] / 2, end["y"] - 5, steps=12)
    tab.shows("Four", "One", "Two", "Three")
    mouse.up()
    handle = tab.page.get_by_role("button", name="Move One")
    handle.press("ArrowDown")
    tab.shows("Four", "Two", "One", "Three")
    expect(handle).to_be_focused()
    for key in ("ArrowUp", "ArrowUp", "ArrowUp", "ArrowDown", "ArrowDown", "ArrowDown", "ArrowDown"):
        handle.press(key)
        expect(handle).to_be_focused()
    tab.saved()
    tab.shows("Four", "Two", "Three", "One")
    assert [task["title"] for task in tab.kept()] == ["Four", "Two", "Three", "One"]
    tab.page.reload()
    tab.shows("Four", "Two", "Three", "One")


def test_filter_search_and_sort(open_tab: Open) -> None:
    tab = open_tab()
    tab.sign_up("Ann")
    for title, days in (("Pay the rent", 3), ("apples", None), ("Call Bob", -1), ("Water plants", 0)):
        tab.page.get_by_label("Due date").fill("" if days is None else (date.today() + timedelta(days)).isoformat())
        tab.add(title)
    tab.edit("apples", Notes="For the rent's sake")
    tab.page.get_by_label("Done: Call Bob").click()
    expect(tab.page.locator(".due")).to_have_text([re.compile(r"\w+ \d+"), "Yesterday", "Today"])
    show, search = tab.page.get_by_role("group", name="Show"), tab.page.get_by_label("Search")
    show.get_by_role("button", name="Open 3").click()
    tab.shows("Pay the rent", "apples", "Water plants")
    show.get_by_role("button", name="Done 1").click()
    tab.shows("Call Bob")
    show.get_by_role("button", name="All 4").click()
    search.fill("RENT  the")
    tab.shows("Pay the rent", "apples")
    search.fill("nothing of it")
    expect(tab.page.get_by_text("No task is like that.")).to_be_visible()
    search.fill("")
    sort = tab.page.get_by_label("Sort by")
    sort.select_option("Due date")
    tab.shows("Call Bob", "Water plants", "Pay the rent", "apples")
    expect(tab.page.get_by_role("button", name="Move apples")).to_have_count(0)
    sort.select_option("Title")
    tab.shows("apples", "Call Bob", "Pay the rent", "Water plants")
    sort.select_option("Newest")
    tab.shows("Water plants", "Call Bob", "apples", "Pay the rent")


def test_overview_is_made_by_the_server(open_tab: Open) -> None:
    tab = open_tab(timezone_id="Pacific/Kiritimati")
    tab.sign_up("Ann")
    tab.page.get_by_label("Due date").fill("2020-01-31")
    tab.add("Late")
    tab.add("Open")
    tab.saved()
    tab.page.get_by_role("link", name="Overview").click()
    expect(tab.page.locator(".figures dd")).to_have_text(["2", "0", "1", "0"])
    expect(tab.page.get_by_text("2020-01-31")).to_be_visible()
    assert tab.page.url.endswith("?tz=Pacific%2FKiritimati")
    asked = [answer.request.resource_type for answer in tab.answers if "/api/tasks/stats" in answer.url]
    assert asked == [], "the browser asked"
    tab.sign_out()
    tab.page.goto(f"{tab.url}/overview")
    expect(tab.page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_tokens_by_the_shared_secret_and_straight_to_the_service(open_tab: Open, example: Example) -> None:
    tab = open_tab(app=example.shared)
    tab.sign_up("Ann")
    tab.add("Milk")
    tab.saved()
    token = tab.page.evaluate("async () => (await (await fetch('/api/auth/token')).json()).token")
    assert json.loads(decoded(token.split(".")[0]))["alg"] == "HS256"
    assert set(json.loads(decoded(token.split(".")[1]))) == {"sub", "iat", "exp"}
    called = {answer.url.split("/api/")[0] for answer in tab.answers if "/api/tasks" in answer.url}
    assert len(called) == 1
    assert example.shared.url not in called, "not across origins"
    tab.page.reload()
    tab.shows("Milk")
    tab.page.get_by_role("link", name="Overview").click()
    expect(tab.page.locator(".figures dd").first).to_have_text("1")


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_everything_has_a_name(open_tab: Open, width: int, scheme: str) -> None:
    tab = open_tab(viewport={"width": width, "height": 844}, color_scheme=scheme)
    tab.sign_up("Ann")
    tab.add("A task of " + "many words " * 12, "W" * 120)
    tab.edit("A task", save=False)
    tab.delete("WWW")
    tab.saved()
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    unnamed = "all => all.filter(e => !(e.ariaLabel || e.labels?.length || e.textContent.trim())).map(e => e.outerHTML)"
    assert tab.page.locator("button, input, select, textarea").evaluate_all(unnamed) == []
    assert tab.page.evaluate(CONTRAST) == []
    origins = {answer.url.split("/")[2] for answer in tab.answers}
    assert origins == {tab.url.removeprefix("http://")}, "something came from elsewhere"


# Texts whose contrast is below 4.5:1 (WCAG 2.2, 1.4.3), by the first background behind each that isn't transparent.
CONTRAST = """() => {
  const light = (rgb) => rgb.slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0)
  const parts = (color) => color.match(/[\\d.]+/g).map(Number)
  const behind = (e) => {
    const color = parts(getComputedStyle(e).backgroundColor)
    return color[3] === 0 ? behind(e.parentElement) : color
  }
  const texts = [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility() &&
    [...e.childNodes].some((node) => node.nodeType === 3 && node.data.trim()) && !/SCRIPT|STYLE/.test(e.tagName))
  return texts.map((e) => {
    const [one, other] = [light(parts(getComputedStyle(e).color)), light(behind(e))].sort()
    return [e.className || e.tagName, e.textContent, (other + 0.05) / (one + 0.05)]
  }).filter(([, , ratio]) => ratio < 4.5)
}"""


def test_the_client_can_be_copied_alone() -> None:
    source = (APP / "lib" / "tasks-client.ts").read_text()
    assert len(source.splitlines()) <= 60
    assert re.findall(r'from "(.+)"', source) == ["openapi-fetch", "./api"]


def test_the_lock_file_names_no_registry() -> None:
    packages = json.loads((APP / "package-lock.json").read_text())["packages"]
    assert len(packages) > 50
    assert [name for name, package in packages.items() if "resolved" in package] == []


@pytest.mark.usefixtures("example")
def test_make_example(tmp_path_factory: pytest.TempPathFactory, database_url: str) -> None:
    """What `make example` runs: with one Ctrl-C all of it has ended."""
    ports = {"PORT": str(free_port()), "APP_PORT": str(free_port())}
    log = tmp_path_factory.mktemp("example") / "log"
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | ports
    environment |= {"BETTER_AUTH_SECRET": SECRET, "DATABASE_URL": database_url}
    with log.open("wb") as output:
        run = subprocess.Popen(
            [sys.executable, "examples/run.py"], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    app = f"http://localhost:{ports['APP_PORT']}"
    try:
        wait_for(lambda: f"The app:  {app}" in log.read_text(), "the app did not start", 240)
        form = json.dumps({"name": "Ann", "email": "ann@example.com", "password": PASSWORD}).encode()
        headers = {"Content-Type": "application/json", "Origin": app}
        with urlopen(Request(f"{app}/api/auth/sign-up/email", form, headers), timeout=60) as response:
            cookies = "; ".join(cookie.split(";")[0] for cookie in response.headers.get_all("Set-Cookie"))
        with urlopen(Request(f"{app}/api/auth/token", headers={"Cookie": cookies}), timeout=60) as response:
            bearer = {"Authorization": f"Bearer {json.load(response)['token']}"}
        with urlopen(Request(f"{app}/api/tasks", headers=bearer), timeout=60) as response:
            assert json.load(response) == []
    finally:
        os.killpg(run.pid, signal.SIGINT)
        assert run.wait(60) == 0, log.read_text()
    for port in ports.values():
        with pytest.raises(OSError, match="refused"):
            urlopen(f"http://localhost:{port}", timeout=5)
