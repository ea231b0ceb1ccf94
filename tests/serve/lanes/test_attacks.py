"""The policy server under attack: other clients are served, memory is bounded, and all ends well.

The short form of `benchmarks/attack.py`, with bounds that a busy machine keeps too: they tell a
server that withstands an attack from one that does not, and do not measure milliseconds.
"""

import asyncio
import contextlib
import functools

import pytest

from benchmarks.attack import measure
from benchmarks.attack_report import NONE, needs_page
from benchmarks.attacks import ATTACKS
from benchmarks.watched_server import serving
from tests.serve.served import publish
from tests.support.waiting import wait_until

SECONDS = {"slow_readers": 5.0}  # these connect one after the other; other attacks take 1.5 s
RECOVERY_S, STALL_MS, MORE_FILES = 10.0, 1000.0, 16
# How often a request waits for a processor: client, HAProxy, server and back, and a spare one.
WAITS = 6
MEMORY_MB = {"realtime": 100.0, "ray": 100.0, "direct": 300.0}
# The longest allowed deadline, because tests on a busy machine wait for the processor too.
PATIENT = ("--set", "deadline_ms=1000")
# HAProxy passes on what follows the upgrade to a WebSocket as it is, so that the lanes `realtime`
# and `direct` give the same bytes to the same application.
PASSED_ON = ("websocket_fragments", "websocket_pings", "websocket_burst", "page_takes",
             "page_slow_live", "page_slow_video", "page_fragments", "page_pings")  # fmt: skip

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def attacked(lane, models):
    """Runs a server, which at last has closed the files of all attackers."""
    page = [] if lane == "ray" else ["--page"]
    with serving(lane, models, *page, *PATIENT) as server:
        asyncio.run(measure(server, NONE, seconds=0.5, warm_up_s=1.0))
        files = server.files()
        yield server
        wait_until(lambda: server.files() <= files + MORE_FILES, timeout_s=30.0)


@pytest.fixture(scope="module")
def server_of(tmp_path_factory):
    """Returns the server of a lane, which all tests of the lane share; one runs at a time."""
    models = tmp_path_factory.mktemp("registry") / "models"
    publish(models)
    with contextlib.ExitStack() as servers:

        @functools.cache
        def start(lane):
            servers.close()
            return servers.enter_context(attacked(lane, models))

        yield start


def cases():
    """All attacks on each lane; the Ray lane has no page."""
    for name in ATTACKS:
        yield pytest.param("realtime", name, id=f"realtime-{name}")
    for name in ATTACKS:
        marks = [pytest.mark.long] if name in PASSED_ON else []
        yield pytest.param("direct", name, id=f"direct-{name}", marks=marks)
    for name in ATTACKS:
        if not needs_page(name):
            marks = [pytest.mark.ray, pytest.mark.long]
            yield pytest.param("ray", name, id=f"ray-{name}", marks=marks)


@pytest.mark.parametrize(("lane", "name"), [*cases()])
def test_honest_clients_are_served_during_an_attack_and_memory_is_bounded(server_of, lane, name):
    server = server_of(lane)
    # The attackers run at normal priority: beside other tests a lower one would weaken them.
    found = asyncio.run(
        measure(
            server,
            name,
            seconds=SECONDS.get(name, 1.5),
            warm_up_s=0.2,
            recovered_within_s=1.0,
            niceness=0,
            files_wait_s=0.0,
        )
    )
    text = str(found)  # whole: pytest shortens a dictionary
    assert found["attacker"]["opened"] > 0, text
    assert found["memory_mb"] < MEMORY_MB[lane], text
    assert found["recovery_s"] is not None, text
    assert found["recovery_s"] < RECOVERY_S, text
    assert server.is_running(), text
    if lane != "direct":  # without a front end a server may slow down
        assert found["honest_refused"] == 0, text
        # The clients measure how late the machine wakes them; the server is woken as late.
        bound_ms = STALL_MS + WAITS * found["client_lag_p99_ms"]
        assert found["honest_p99_ms"] < bound_ms, text
        assert found["health_max_ms"] < bound_ms, text
