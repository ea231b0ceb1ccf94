"""Rollouts on real servers: who is moved when, and what happens after faults and restarts."""

import contextlib
import time

import httpx
import numpy as np
import pytest

from rlcar.registry import Registry
from serve.client import DriveClient, Lap, LapResult, ServerError
from serve.delivery.assignment import is_canary
from serve.delivery.operator import Operator
from serve.delivery.specification import parse_specification
from serve.guard.tokens import TokenStore
from serve.policy import alias_follower
from serve.policy.policy import try_model
from tests.serve.open_loop import driving_cars
from tests.serve.served import publish, serving
from tests.support.waiting import wait_until

CARS = 10
ROLLOUT = "rollout"  # in which car-0 is among the first 50 % and car-2 among the first 30 %
SEEN, NO_ACTION = [0.5] * 6, [np.nan, np.nan]
LATE_S = 1.0  # the deadline of the servers here
STEPS = [{"setWeight": 50}, {"pause": {}}, {"setWeight": 100}, {"pause": {"duration": "500ms"}}]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "models"
    publish(folder, seed=1)
    publish(folder, seed=2, alias=None)
    return folder


@pytest.fixture
def operator(folder):
    return Operator(Registry(folder), "champion", "me")


def start(operator, *steps, **rollback):
    # On a busy machine a sound candidate may answer late too.
    rollback = {"enabled": False} | rollback
    tree = {"strategy": {"canary": {"steps": list(steps or STEPS)}}, "rollback": rollback}
    return operator.start(2, parse_specification(tree), try_model, rollout=ROLLOUT)


@contextlib.contextmanager
def driving(server, per_s=40.0):
    """Drives ten cars until the block ends; yields the list of their answers."""
    # A slow machine gets fewer requests, so that the answers stay within the deadline.
    with driving_cars(f"http://127.0.0.1:{server.port}", per_s, CARS, at_once=4) as told:
        yield told


def application(server):
    return server.config.app.app


def versions_of(told, since_s=0.0):
    """Returns the last version that each car had."""
    ordered = sorted((one for one in told if one.sent_s >= since_s), key=lambda one: one.sent_s)
    return {one.session: one.version for one in ordered}


def switches(told):
    """Counts how often each car got another version than before."""
    found = {}
    for session in {one.session for one in told}:
        # In the order in which the server acted, which may differ from that of the sender.
        own = sorted((one for one in told if one.session == session), key=lambda one: one.steps)
        versions = [one.version for one in own]
        found[session] = sum(a != b for a, b in zip(versions, versions[1:], strict=False))
    return found


def sources(told):
    """Returns the sources of the answers within the deadline; later ones tell the car to brake."""
    return {one.source for one in told if one.received_s - one.sent_s < LATE_S}


def assigned(weight):
    """Returns the version that each car has at a weight."""
    names = [f"car-{number}" for number in range(CARS)]
    return {name: 2 if is_canary(ROLLOUT, name, weight) else 1 for name in names}


def phase(operator):
    return operator.read().state.phase


def wait_for_cars(told, expected):
    """Waits until every car has the version that it should have."""
    since_s = time.perf_counter()
    wait_until(lambda: versions_of(told, since_s) == expected)


def wait_for_answers(server):
    """Waits until the candidate has given as many answers as a promotion needs."""
    arms = application(server).action_service.arms
    wait_until(lambda: arms.counts.candidate.answers >= 20)


def test_a_rollout_moves_each_car_once_and_loses_no_request(folder, operator):
    with serving(folder, poll_s=0.05) as server, driving(server) as told:
        wait_until(lambda: len(versions_of(told)) == CARS)
        start(operator)
        wait_for_cars(told, assigned(50.0))
        wait_until(lambda: phase(operator) == "Paused")
        wait_for_answers(server)
        operator.resume()
        wait_until(lambda: phase(operator) == "Healthy")
        wait_for_cars(told, assigned(100.0))
        wait_until(lambda: application(server).action_service.arms.active is None)
        wait_for_cars(told, assigned(100.0))
        counts = operator.read().entries[-2].event.reason
        metrics = application(server).metrics
    assert Registry(folder).aliases()["champion"] == 2
    assert {one.status for one in told} == {200}
    assert sources(told) == {"model"}
    assert set(switches(told).values()) == {1}
    assert metrics.migrations == CARS
    assert "answers by the candidate" in counts
    for session in assigned(0.0):  # every car kept its memory
        own = [one for one in told if one.session == session]
        steps = [one.steps for one in own if one.source == "model"]
        assert len(set(steps)) == len(steps)  # no step was counted twice, so none was forgotten
        assert max(steps) <= len(own)


def test_an_aborted_rollout_gives_the_cars_back_with_their_memory(folder, operator):
    with serving(folder, poll_s=0.05) as server, driving(server) as told:
        start(operator, {"setWeight": 100}, {"pause": {}})
        wait_for_cars(told, {f"car-{number}": 2 for number in range(CARS)})
        operator.abort("enough")
        wait_for_cars(told, {f"car-{number}": 1 for number in range(CARS)})
    assert sources(told) == {"model"}
    assert max(switches(told).values()) <= 2
    assert Registry(folder).aliases()["champion"] == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [(FloatingPointError, "not finite"), (ValueError, "errors")],
)
def test_a_faulty_candidate_is_rolled_back_at_once(folder, operator, error, said):
    with serving(folder, poll_s=0.05) as server, driving(server) as told:
        start(operator, {"setWeight": 50}, {"pause": {}}, enabled=True, latencyRatio=100.0)
        wait_until(lambda: 2 in versions_of(told).values())
        policy = application(server).alias_follower.candidate.policy

        def fail(*_):
            raise error("injected")

        began_s = time.time()
        policy.act = fail
        wait_until(lambda: phase(operator) == "Degraded")
        entry = operator.read().entries[-1]
        wait_for_cars(told, {f"car-{number}": 1 for number in range(CARS)})
        rollbacks = application(server).metrics.rollbacks
    assert entry.time_s - began_s < 20.0  # of a busy machine
    assert said in entry.event.reason
    assert entry.event.is_rollback
    assert rollbacks == 1
    brakes = [one for one in told if one.source == "fallback"]
    assert len(brakes) < 30


def test_a_candidate_that_fails_from_the_start_is_rolled_back(folder, operator, monkeypatch):
    # The cars stay with the stable version, as the candidate fails on what they have observed.
    load = alias_follower.warm_up

    def failing(policy):
        served = load(policy)
        if served.number == 2:
            policy.act = fail
        return served

    def fail(*_):
        raise ValueError("injected")

    monkeypatch.setattr(alias_follower, "warm_up", failing)
    with serving(folder, poll_s=0.05) as server, driving(server) as told:
        wait_until(lambda: len(versions_of(told)) == CARS)
        start(operator, {"setWeight": 20}, {"pause": {}}, enabled=True, latencyRatio=100.0)
        wait_until(lambda: phase(operator) == "Degraded")
    assert "errors 100 %" in operator.read().entries[-1].event.reason
    assert set(versions_of(told).values()) == {1}
    assert sources(told) == {"model"}


def test_a_restarted_server_goes_on_where_the_journal_ends(folder, operator):
    with serving(folder, poll_s=0.05) as server, driving(server) as told:
        start(operator)
        wait_until(lambda: phase(operator) == "Paused")
        wait_for_cars(told, assigned(50.0))
    before = assigned(50.0)
    state = operator.read().state
    with serving(folder, poll_s=0.05) as server, driving(server) as again:
        wait_until(lambda: len(versions_of(again)) == CARS)
        follower = application(server).rollout_follower
        assert follower.state == state
    assert switches(again) == dict.fromkeys(before, 0)
    assert versions_of(again) == before


def test_two_servers_agree(folder, operator):
    with (
        serving(folder, poll_s=0.05) as one,
        serving(folder, poll_s=0.05) as other,
        driving(one, 15.0) as told,
        driving(other, 15.0) as told_other,
    ):
        start(operator, {"setWeight": 40}, {"pause": {}})
        wait_until(lambda: 2 in versions_of(told).values())
        wait_until(lambda: versions_of(told) == versions_of(told_other))
        wait_until(
            lambda: operator.counts(operator.read().state).candidate.answers
            >= max(application(server).action_service.arms.counts.candidate.answers
                   for server in (one, other)) + 5
        )  # fmt: skip
        operator.promote("both agree")
        everyone = dict.fromkeys(versions_of(told), 2)
        wait_until(lambda: versions_of(told) == versions_of(told_other) == everyone)
    assert max(switches(told).values()) == max(switches(told_other).values()) == 1


def test_a_server_that_cannot_read_the_journal_stays_as_it_is(folder, operator, caplog):
    journal = folder / "rollouts"
    with serving(folder, poll_s=0.05) as server, driving(server) as told:
        start(operator, {"setWeight": 50}, {"pause": {}})
        wait_until(lambda: phase(operator) == "Paused")
        wait_for_cars(told, assigned(50.0))
        (journal / "champion/00000099.json").write_text("{}")
        wait_until(lambda: "entry 99 of the journal" in caplog.text)
        wait_for_cars(told, assigned(50.0))
        (journal / "champion/00000099.json").unlink()
        wait_for_answers(server)
        operator.resume()
        wait_until(lambda: phase(operator) == "Healthy")
    assert sum("entry 99 of the journal" in one.message for one in caplog.records) == 1


def test_a_shadow_acts_unseen_and_is_compared(folder, operator):
    with serving(folder, poll_s=0.05) as server, driving(server) as told:
        metric = {"name": "pairs", "value": "actionDifferenceShare", "interval": "100ms",
                  "successCondition": "<= 1"}  # fmt: skip
        start(
            operator,
            {"shadow": {"weight": 100, "duration": "1s"}},
            {"analysis": {"metrics": [metric]}},
            {"pause": {}},
        )
        wait_until(lambda: phase(operator) == "Paused")
        arms = application(server).action_service.arms
        wait_until(lambda: arms.counts.shadow.pairs > 50)
        counts = arms.counts.shadow
    assert set(versions_of(told).values()) == {1}
    assert counts.errors == counts.non_finite == 0
    assert 0 < counts.differing <= counts.pairs
    measured = [one.event for one in operator.read().entries if "Measured" in repr(one.event)]
    assert 0.0 < measured[0].measurements[0].value <= 1.0


def test_requests_without_a_session_always_use_the_stable_version(folder, operator):
    with serving(folder, poll_s=0.05) as server:
        start(operator, {"setWeight": 100}, {"pause": {}})
        arms = application(server).action_service.arms
        wait_until(lambda: arms.active is not None)
        observation = np.full(6, 0.5).tolist()
        url = f"http://127.0.0.1:{server.port}/v1/act"
        alone = httpx.post(url, json={"observation": observation}, timeout=30).json()
        seen = {"observation": observation, "session": "a"}
        car = httpx.post(url, json=seen, timeout=30).json()
    assert (alone["model_version"], car["model_version"]) == (1, 2)


def _of(specification):
    return {"specification": specification}


def test_the_same_over_http_needs_the_scope_admin(folder, operator, tmp_path):
    store = TokenStore(tmp_path / "tokens.json")
    headers = {
        scope: {"authorization": f"Bearer {store.create(scope, [scope])}"}
        for scope in ("read", "act", "admin")
    }
    with serving(folder, poll_s=0.05, auth=True, tokens=store.path) as server:
        url = f"http://127.0.0.1:{server.port}/v1/rollout"

        def send(scope="admin", **body):
            return httpx.post(f"{url}/command", json=body, headers=headers[scope], timeout=30)

        def show():
            return httpx.get(url, headers=headers["read"], timeout=30).json()

        assert show() == {"rollout": None}
        specification = {"strategy": {"canary": {"steps": [{"setWeight": 10}, {"pause": {}}]}}}
        assert send("act", command="start", version=2).status_code == 403
        wrong = {"strategy": {"canary": {"steps": [{"setWeight": 101}]}}}
        misspelt = {"strategy": {"canary": {"steps": [{"setWieght": 10}]}}}
        gated = specification | {"gates": {"simulation": {}}}
        for status, said, body in (
            (404, "no version 9", {"command": "start", "version": 9}),
            (409, "champion already", {"command": "start", "version": 1}),
            (409, "no rollout yet", {"command": "pause"}),
            (422, "= 101", {"command": "start", "version": 2} | _of(wrong)),
            (422, "did you mean 'setWeight'?", {"command": "start", "version": 2} | _of(misspelt)),
            (422, "does not simulate", {"command": "start", "version": 2} | _of(gated)),
            (422, "needs the `version`", {"command": "start"}),
            (422, "unknown field `versoin`", {"command": "start", "versoin": 2}),
        ):
            answer = send(**body)
            assert answer.status_code == status, answer.text
            assert said in answer.json()["error"]
        begun = send(command="start", version=2, specification=specification)
        assert begun.json()["rollout"]["weight"] == 10.0
        assert send(command="start", version=2).status_code == 409
        wait_until(lambda: show()["rollout"])
        assert send(command="abort", reason="enough").json()["rollout"]["phase"] == "Degraded"
    assert [entry.actor for entry in operator.read().entries if entry.actor == "admin"]
    assert operator.read().entries[-1].event.reason == "enough"


def test_laps_are_reported_for_the_version_that_drove_them(folder, operator):
    with serving(folder, poll_s=0.05) as server:
        url = f"http://127.0.0.1:{server.port}/v1"

        def act():
            body = {"observation": [0.5] * 6, "session": "a"}
            return httpx.post(f"{url}/act", json=body, timeout=30).json()["model_version"]

        def report(**body):
            return httpx.post(f"{url}/outcome", json={"session": "a"} | body, timeout=30)

        assert act() == 1
        start(operator, {"setWeight": 100}, {"pause": {}})
        wait_until(lambda: act() == 2)
        counts = application(server).action_service.arms.counts
        moved = {
            "status": "ignored",
            "reason": "the session moved to another version during the lap",
        }
        assert report(reward=1.0).json() == moved
        human = {"status": "ignored", "reason": "a person drove"}
        act()
        assert report(reward=2.0, human=True).json() == human
        idle = {"status": "ignored", "reason": "the session has not driven since its last lap"}
        assert report(reward=2.5).json() == idle
        assert counts.rewards == []
        act()
        assert report(reward=3.0, success=True).json() == {"status": "counted"}
        assert [(one.is_canary, one.value) for one in counts.rewards] == [(True, 3.0)]
        assert [one.value for one in counts.successes] == [1.0]
        for status, said, body in (
            (404, "no session 'b'", {"session": "b", "reward": 1.0}),
            (422, "give `reward`, `success` or both", {}),
            (422, "unknown field `rewrad`", {"rewrad": 1.0}),
        ):
            answer = report(**body)
            assert answer.status_code == status
            assert said in answer.json()["error"]
        assert "from -1e+09 to 1e+09" in report(reward=-1.1e9).json()["error"]
        body = b'{"session": "a", "reward": 1e999}'
        answer = httpx.post(f"{url}/outcome", content=body, timeout=30)
        assert answer.status_code in (400, 422)
        assert "\n" not in answer.json()["error"]


def test_many_laps_are_reported_at_once(folder, operator):
    with serving(folder, poll_s=0.05) as server:
        url = f"http://127.0.0.1:{server.port}"
        start(operator, {"setWeight": 50}, {"pause": {}})
        arms = application(server).action_service.arms
        wait_until(lambda: arms.active is not None)
        options = {"timeout_ms": 30_000}
        with (
            DriveClient(url, session="car-0", **options) as one,  # the candidate's
            DriveClient(url, session="several", **options) as several,
        ):
            one.act(SEEN)
            several.act([SEEN] * 3)
            # A person drove the second car's last step.
            several.act([SEEN] * 3, reward=0.0, executed=[NO_ACTION, [0.5, 0.5], NO_ACTION])
            laps = [Lap(3.0, True, session="car-0"), Lap(1.0, car=1), Lap(success=True, car=2)]
            results = several.report_laps([*laps, Lap(9.0, car=3), Lap(9.0, session="nobody")])
            assert several.report_laps([Lap(1.0, car=1)]) == [LapResult("counted")]
            assert [one.status for one in results] == [
                *("counted", "ignored", "counted", "refused", "refused")
            ]
            assert results[1].reason == "a person drove"
            assert "3 cars, and `car` is 3" in results[3].reason
            for _ in range(3):
                one.act(SEEN)
            results = one.report_laps([Lap(2.0)] * 300)  # more than a request holds
            assert [result.status for result in results] == ["counted"] * 3 + ["ignored"] * 297
            with pytest.raises(ValueError, match="reward of lap 1 is nan"):
                one.report_laps([Lap(2.0), Lap(float("nan"))])
        assert len(arms.counts.rewards) == 5
        bad = {"laps": [{"session": "car-0", "reward": 1.0}, {"session": "car-0", "reward": 2e9}]}
        answer = httpx.post(f"{url}/v1/outcome", json=bad, timeout=30)
        assert answer.status_code == 422
        assert "laps[1]: the reward is 2e+09" in answer.json()["error"]
        assert len(arms.counts.rewards) == 5
        with pytest.raises(ServerError, match="cannot reach"):
            DriveClient("http://127.0.0.1:9").report_laps([Lap(1.0)])


def test_a_server_of_the_newest_version_has_no_rollouts(folder, caplog):
    with serving(folder, poll_s=0.05, alias="latest") as server:
        assert not application(server).has_rollouts
    assert "cannot be followed" not in caplog.text
