"""The short form of `make chaos`: each fault under load, on servers of its own.

Without those that need the service set up otherwise: `test_processes.py` has workers that are replaced by max_requests.
"""

from collections.abc import Iterator

import pytest

from tests.support import chaos
from tests.support.faults import Fault, Stage, faults
from tests.support.faults import stage as servers
from tests.support.servers import MissingProgram

pytestmark = pytest.mark.timed

# Longer than an answer is waited for.
HOLD = 6


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    try:
        with servers() as running:
            yield running
    except MissingProgram as missing:
        pytest.skip(str(missing))


FAULTS = [fault for fault in faults(HOLD) if not fault.options]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_promise_is_kept(stage: Stage, fault: Fault) -> None:
    outcome = chaos.run(stage, fault)
    assert outcome.broken == [], outcome
    assert outcome.acknowledged > 0
