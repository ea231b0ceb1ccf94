"""A store that hangs: every call ends in time, few threads hang, and then it works again."""

import threading
import time

import pytest

from rlcar.errors import RegistryUnavailableError
from rlcar.registry import Registry
from rlcar.registry.deadline import DeadlineStore
from rlcar.registry.store import open_store
from tests.registry.hanging_store import ENVIRONMENT, hanging_store
from tests.support.waiting import wait_until


@pytest.fixture
def hanging(monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with hanging_store() as store:
        yield store


def _threads() -> int:
    return sum(thread.name == "rlcar-registry" for thread in threading.enumerate())


def test_a_store_that_hangs_holds_few_threads_and_is_asked_again_when_it_answers(hanging):
    store = DeadlineStore(open_store(hanging.url), deadline_s=0.3)
    DeadlineStore(open_store(hanging.url)).write("a", b"1")
    before = _threads()
    hanging.hang()
    for attempt in range(20):
        began_s = time.monotonic()
        with pytest.raises(RegistryUnavailableError, match="no answer within|an earlier call"):
            store.read(f"file-{attempt}", 10)
        with pytest.raises(RegistryUnavailableError, match="an earlier call|no answer within"):
            store.read("a", 10)
        assert time.monotonic() - began_s < 5.0
    assert _threads() - before <= 4
    hanging.go_on()

    def is_read() -> bool:
        try:
            return store.read("a", 10) == b"1"
        except RegistryUnavailableError:
            return False

    wait_until(is_read)


def test_a_registry_that_hangs_is_named(hanging):
    registry = Registry(hanging.url, deadline_s=0.3)
    hanging.hang()
    for verb in (registry.versions, lambda: registry.resolve("champion"), registry.aliases):
        with pytest.raises(RegistryUnavailableError, match="cannot list s3://models/registry"):
            verb()
