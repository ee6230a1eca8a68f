"""Which thread of a worker serves: one as long as nothing takes long, and others when something does."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import SECRET, User, run_sql, wait_for
from tests.live import Connection, Service
from tests.wire import Wire
from todo_service.lead import ANSWERS, NEAR, SHORT, Lead

SOON, LATE = SHORT / 100, NEAR * 3


@pytest.fixture
def lead() -> Lead:
    """Taken by this thread, which has something to do."""
    lead = Lead()
    lead.take()
    lead.begin()
    return lead


def can_be_taken(lead: Lead, seconds: float = 20) -> bool:
    """Whether another thread can lead, at the latest after so long; if so, one does for a moment."""

    def lead_for_a_moment() -> None:
        lead.take()
        lead.give_up()

    thread = threading.Thread(target=lead_for_a_moment, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


def is_kept(lead: Lead) -> bool:
    return not can_be_taken(lead, 0.2)


def answer_after(seconds: float) -> Callable[[float], bool]:
    """A wait for an answer that comes so many seconds, in all, after somebody began to wait for it."""
    began: float | None = None

    def wait(patience: float) -> bool:
        nonlocal began
        began = time.monotonic() if began is None else began
        time.sleep(max(0, min(patience, began + seconds - time.monotonic())))
        return time.monotonic() >= began + seconds

    return wait


def test_the_lead_is_kept_while_nothing_takes_long(lead: Lead) -> None:
    assert is_kept(lead)
    assert lead.wait(answer_after(SOON), 1)
    assert is_kept(lead)
    lead.take()
    assert is_kept(lead)


def test_the_lead_is_given_up(lead: Lead) -> None:
    lead.give_up()
    assert can_be_taken(lead)
    lead.take()
    assert is_kept(lead)


def test_the_lead_is_given_up_for_an_answer_that_takes_long(lead: Lead) -> None:
    assert lead.wait(answer_after(LATE), 1)
    assert can_be_taken(lead)


def test_the_lead_is_given_up_with_a_change(lead: Lead) -> None:
    lead.keep_no_longer()
    assert is_kept(lead)
    assert lead.wait(answer_after(SOON), 1)
    assert can_be_taken(lead)


def test_an_answer_that_does_not_come(lead: Lead) -> None:
    assert not lead.wait(answer_after(1), LATE)
    assert can_be_taken(lead)


def test_nobody_leads_where_the_database_is_far_away(lead: Lead) -> None:
    """It's near as soon as the quickest of its last answers says so."""
    follower = threading.Thread(target=lead.take, daemon=True)
    follower.start()
    with ThreadPoolExecutor(1) as other:
        for _ in range(ANSWERS):
            assert follower.is_alive()
            other.submit(lead.wait, answer_after(LATE), 1).result()
        follower.join(10)
        assert not follower.is_alive()
    lead.take()
    assert can_be_taken(lead)
    for number in range(ANSWERS):
        lead.wait(answer_after(LATE if number % 8 else SOON), 1)
    lead.give_up()
    lead.take()
    assert is_kept(lead)


def test_who_forgets_to_give_it_up_loses_it(lead: Lead) -> None:
    lead.pass_on(60)
    assert is_kept(lead)
    lead.pass_on(0)
    assert can_be_taken(lead)
    lead.take()
    # Nothing to do: it waits for clients, as it should.
    lead.pass_on(0)
    assert is_kept(lead)


def test_nobody_leads_outside_of_the_worker() -> None:
    lead = Lead()
    lead.give_up()
    lead.keep_no_longer()
    lead.pass_on(0)
    assert lead.wait(answer_after(SOON), 1)


@pytest.fixture
def service(wire: Wire) -> Iterator[Service]:
    """With one process, so that whoever waits in vain waits for another thread of it."""
    with Service(wire.dsn(), SECRET, WEB_CONCURRENCY="1", WEB_THREADS="3") as running:
        yield running


@pytest.mark.parametrize(
    ("method", "path", "body"), [("GET", "/api/tasks", None), ("POST", "/api/tasks", {"title": "x"})]
)
def test_others_are_served_while_one_waits_for_the_database(
    service: Service, wire: Wire, alice: User, method: str, path: str, body: object
) -> None:
    with ThreadPoolExecutor(1) as pool, Connection(service.url, alice.token) as one, Connection(service.url) as other:
        assert one.request(method, path, body).status in (200, 201)
        wire.reset()
        wire.hold_replies()
        waiting = pool.submit(one.request, method, path, body)
        wait_for(lambda: wire.queries, "nothing was sent")
        assert other.request("GET", "/health/live").status == 200
        assert not waiting.done()
        wire.release()
        assert waiting.result(20).status in (200, 201)


def test_others_are_served_while_one_has_much_to_do(service: Service, alice: User, database_url: str) -> None:
    """A large import is checked for a second or more, by a thread that isn't the one that waits for clients."""
    tasks = [{"title": "Buy milk " * 20} for _ in range(5000)]
    answered = 0
    with ThreadPoolExecutor(1) as pool, Connection(service.url, alice.token) as one, Connection(service.url) as other:
        assert other.request("GET", "/health/live").status == 200
        importing = pool.submit(one.request, "POST", "/api/tasks/import", {"tasks": tasks})
        while not importing.done():
            assert other.request("GET", "/health/live").status == 200
            answered += 1
        assert importing.result().status == 200
    # Who waits for the import to end gets one answer, or two.
    assert answered > 5
    assert run_sql(database_url, "SELECT count(*) FROM tasks WHERE user_id = %(user)s", {"user": alice.id}) == [(5000,)]
