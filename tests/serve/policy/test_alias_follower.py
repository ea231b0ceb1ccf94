"""Which version acts while the alias has never been set: the same one in all servers."""

import asyncio

import httpx
import pytest

from rlcar.registry import Registry
from serve.observing.metrics import ServerMetrics
from serve.policy import alias_follower
from serve.policy.alias_follower import AliasFollower
from tests.serve.served import damage, publish, serving
from tests.support.waiting import wait_until


@pytest.fixture(autouse=True)
def _no_pause_between_checks(monkeypatch):
    monkeypatch.setattr(alias_follower, "_MIN_CHECK_INTERVAL_S", 0.0)


def _follower(folder):
    follower = AliasFollower(Registry(folder), "champion", ServerMetrics())
    follower.load_first()
    return follower


def _checked(follower):
    asyncio.run(follower.check())
    return follower.current.number


def test_servers_that_started_at_different_times_act_with_the_same_version(tmp_path):
    publish(tmp_path, alias=None)
    early = _follower(tmp_path)
    assert early.current.number == 1
    publish(tmp_path, seed=1, alias=None)
    late = _follower(tmp_path)
    assert late.current.number == 2
    assert (_checked(early), _checked(late)) == (2, 2)
    Registry(tmp_path).promote(1)
    assert (_checked(early), _checked(late)) == (1, 1)
    publish(tmp_path, seed=2, alias=None)  # from now on only the alias counts
    assert (_checked(early), _checked(late)) == (1, 1)


def test_a_damaged_newest_version_is_passed_over(tmp_path):
    publish(tmp_path, alias=None)
    early = _follower(tmp_path)
    publish(tmp_path, seed=1, alias=None)
    damage(tmp_path, publish(tmp_path, seed=2, alias=None))
    assert _checked(early) == _follower(tmp_path).current.number == 2


def test_a_number_that_no_version_can_have_is_no_endless_search(tmp_path):
    publish(tmp_path, alias=None)
    metrics = ServerMetrics()
    follower = AliasFollower(Registry(tmp_path), "123456789", metrics)
    follower.load_first()
    asyncio.run(follower.check())
    assert follower.current is None
    assert not follower.is_registry_empty
    assert metrics.registry_errors == 2


def _metric(web, name):
    lines = web.get("/metrics").text.splitlines()
    return [line.rpartition(" ")[2] for line in lines if line.startswith(f"{name} ")]


@pytest.mark.parametrize(("waits", "awaited"), [(True, ["1.0"]), (False, ["0.0"])])
def test_a_server_with_an_empty_registry_is_up_and_takes_the_first_version(
    tmp_path, waits, awaited
):
    with serving(tmp_path, poll_s=0.05, waits_for_model=waits) as server, httpx.Client() as web:
        web.base_url = f"http://127.0.0.1:{server.port}"
        ready = web.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "no model")
        assert web.get("/health/live").status_code == 200
        assert _metric(web, "rlcar_model_awaited") == awaited
        assert _metric(web, "rlcar_model_version") == []
        publish(tmp_path, alias=None)
        wait_until(lambda: web.get("/health/ready").status_code == 200)
        assert _metric(web, "rlcar_model_awaited") == ["0.0"]
        assert _metric(web, "rlcar_model_version") == ["1.0"]


def test_a_server_that_refuses_every_version_awaits_none(tmp_path):
    damage(tmp_path, publish(tmp_path, alias=None))
    with serving(tmp_path, poll_s=0.05, waits_for_model=True) as server, httpx.Client() as web:
        web.base_url = f"http://127.0.0.1:{server.port}"
        assert web.get("/health/ready").json()["status"] == "no model"
        assert _metric(web, "rlcar_registry_readable") == ["1.0"]
        assert _metric(web, "rlcar_model_load_failures_total") != ["0.0"]
        assert _metric(web, "rlcar_model_awaited") == ["0.0"]
