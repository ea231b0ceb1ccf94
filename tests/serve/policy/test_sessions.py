"""The memory of cars: how much, how long, and what survives a new model version."""

import asyncio
import shutil
import threading
import time
from collections import Counter

import httpx
import numpy as np
import pytest

from rlcar.registry import Registry
from serve.api.schema import CheckedRequest, ObservationBatch, RequestError
from serve.guard.tokens import TokenStore
from serve.observing.metrics import ServerMetrics
from serve.policy.action_service import ActionService
from serve.policy.alias_follower import AliasFollower
from serve.policy.policy import load_policy
from serve.policy.sessions import Session, Sessions
from serve.settings import make_settings
from tests.serve.served import publish, serving

REPLAY = 8
SLOW_S = 0.4


def _service(folder, **settings):
    settings = make_settings(registry=str(folder), replay_steps=REPLAY, **settings)
    metrics = ServerMetrics()
    follower = AliasFollower(Registry(folder), "champion", metrics)
    follower.load_first()
    return ActionService(settings, follower, metrics)


def _ask(seen, session="a", step=None, is_first=False, deadline_ms=1000.0):
    first = np.full(len(seen), is_first)
    return CheckedRequest(ObservationBatch(seen, first), False, session, step, deadline_ms, None)


async def _act(service, seen, **options):
    return await service.act(_ask(seen, **options), "me", service.now_s())


def _seen(steps, cars, seed=0):
    return np.random.default_rng(seed).random((steps, cars, 6), np.float32)


def test_a_lap_needs_a_step_since_the_laps_before(versions):
    session = Session(versions[0], 2, REPLAY)
    first, second, any_car = slice(0, 1), slice(1, 2), slice(None)

    def drive(steps):
        for seen in _seen(steps, 2):
            session.act(ObservationBatch(seen, np.zeros(2, bool)))

    assert not session.use_step(first)
    drive(1)
    assert [session.use_step(first) for _ in range(2)] == [True, False]
    drive(3)
    assert [session.use_step(first) for _ in range(4)] == [True, True, True, False]
    assert [session.use_step(second) for _ in range(5)] == [True] * 4 + [False]
    drive(2)
    assert session.use_step(first)
    drive(1)  # the step that no lap has used is forgotten
    assert [session.use_step(any_car) for _ in range(5)] == [True] * 4 + [False]


def test_the_longest_unseen_cars_make_room(versions):
    sessions = Sessions(cars=100, expiry_s=60.0, replay_steps=4)
    for number in range(10):
        sessions.open("me", str(number), versions[0], 20)
    assert sessions.cars == 100
    assert [bool(sessions.peek("me", str(number))) for number in (4, 5, 9)] == [False, True, True]


def test_a_session_that_is_asked_stays(versions):
    sessions = Sessions(cars=40, expiry_s=60.0, replay_steps=4)
    for number in range(10):
        sessions.open("me", str(number), versions[0], 20)
        assert number == 0 or sessions.find("me", "0", 20)
    assert sessions.peek("me", "0")


@pytest.mark.parametrize("cars", [1, 7, 64])
def test_a_flood_of_one_owners_sessions_evicts_none_of_anothers(versions, cars):
    sessions = Sessions(cars=640, expiry_s=60.0, replay_steps=4, cars_per_owner=320)
    for name in "abc":
        sessions.open("me", name, versions[0], 20)
    for number in range(1000):
        sessions.open("flood", str(number), versions[0], cars)
        assert sessions.cars <= 640
    assert all(sessions.peek("me", name) for name in "abc")
    kept = [number for number in range(1000) if sessions.peek("flood", str(number))]
    assert kept == list(range(1000 - 320 // cars, 1000))  # its own newest


def test_a_flood_from_many_owners_takes_from_those_who_have_most(versions):
    sessions = Sessions(cars=200, expiry_s=60.0, replay_steps=4, cars_per_owner=100)
    sessions.open("me", "car", versions[0], 10)
    for number in range(1000):
        sessions.open(f"flood-{number % 5}", str(number), versions[0], 20)
        assert sessions.cars <= 200
        assert sessions.peek("me", "car")
        assert sessions.peek(f"flood-{number % 5}", str(number))


def test_a_new_owner_finds_room_where_all_have_as_much(versions):
    sessions = Sessions(cars=10, expiry_s=60.0, replay_steps=4)
    for number in range(20):
        sessions.open(f"owner-{number}", "car", versions[0], 1)
        assert sessions.peek(f"owner-{number}", "car")
    assert len(sessions) == sessions.cars == 10


def test_the_books_agree_whatever_happens(versions):
    rng = np.random.default_rng(0)
    now_s = [0.0]
    sessions = Sessions(60, 10.0, replay_steps=4, clock=lambda: now_s[0], cars_per_owner=25)
    for _ in range(3000):
        owner, name = f"owner-{rng.integers(6)}", f"car-{rng.integers(4)}"
        now_s[0] += rng.exponential(0.3)
        held = sessions.peek(owner, name)
        kind = rng.integers(3)
        if kind == 0:
            sessions.open(owner, name, versions[0], int(rng.integers(1, 10)))
        elif kind == 1:
            sessions.close(owner, name)
        else:
            sessions.find(owner, name, held.cars if held else 1)
        listed = sessions._sessions
        assert sessions.cars == sum(session.cars for session in listed.values()) <= 60
        cars_of = Counter()
        for (who, _), session in listed.items():
            cars_of[who] += session.cars
        assert cars_of == sessions._cars_of
        assert max(cars_of.values(), default=0) <= 25
        names = {(who, one) for who, own in sessions._names.items() for one in own}
        assert names == set(listed)


def test_over_the_network_a_flood_evicts_none_of_anothers(folder, tmp_path):
    store = TokenStore(tmp_path / "tokens.json")
    secrets = {name: store.create(name, ["act"]) for name in ("me", "flood")}
    settings = {"auth": True, "tokens": store.path, "session_cars": 600}
    with serving(folder, session_cars_per_owner=300, **settings) as server:
        address = f"http://127.0.0.1:{server.port}"
        with httpx.Client(base_url=address, timeout=30.0) as web:

            def steps(owner, session, cars):
                asked = {"observations": [[0.5] * 6] * cars, "session": session}
                headers = {"authorization": f"Bearer {secrets[owner]}"}
                return web.post("/v1/act", json=asked, headers=headers).json()["session_steps"]

            assert steps("me", "car", 1) == 1
            for number in range(30):
                assert steps("flood", f"car-{number}", 100) == 1
            assert steps("me", "car", 1) == 2
            assert server.config.app.app.action_service.sessions.cars == 301


def test_sessions_end_when_nobody_asks(versions):
    now_s = [0.0]
    sessions = Sessions(100, expiry_s=10.0, replay_steps=4, clock=lambda: now_s[0])
    sessions.open("me", "old", versions[0], 1)
    now_s[0] = 6.0
    sessions.open("me", "new", versions[0], 1)
    now_s[0] = 11.0
    assert sessions.find("me", "old", 1) is None
    assert sessions.find("me", "new", 1)
    assert sessions.cars == 1


def test_a_name_is_its_owners_alone(versions):
    sessions = Sessions(100, 60.0, 4)
    sessions.open("me", "car", versions[0], 1)
    assert sessions.find("you", "car", 1) is None
    with pytest.raises(RequestError, match="drives 1 cars, and 2"):
        sessions.find("me", "car", 2)


@pytest.mark.parametrize("cars", [1, 256])
def test_a_new_version_knows_what_the_old_one_saw_last(folder, versions, cars):
    """Small sessions migrate at once; large ones migrate while the old version acts."""
    service = _service(folder)
    old, new = versions
    # The measured costs would decide by the speed and the load of this machine.
    cost_s = (1e-5,) * 3 if cars == 1 else (0.01,) * 3
    old, new = old._replace(cost_s=cost_s), new._replace(cost_s=cost_s)
    service.alias_follower.current = old
    seen = _seen(30, cars)

    async def drive():
        answers = []
        for step in range(20):
            answers.append(await _act(service, seen[step]))
        service.alias_follower.current = new
        for step in range(20, 30):
            answers.append(await _act(service, seen[step]))
            await asyncio.sleep(0.05)
        # A busy machine may take longer to move a large session.
        deadline_s = time.monotonic() + 60.0
        while answers[-1].model_version == 1 and time.monotonic() < deadline_s:
            answers.append(await _act(service, seen[-1]))
            await asyncio.sleep(0.05)
        return answers

    answers = asyncio.run(drive())
    service.close()
    numbers = [answer.model_version for answer in answers]
    assert {answer.source for answer in answers} == {"model"}
    assert numbers == sorted(numbers)
    moved = numbers.index(2)
    assert moved == 20 if cars == 1 else moved > 20
    # The action of the new version, if it had received the last observations itself.
    state = new.policy.initial_state(cars)
    begins = moved - REPLAY if cars == 1 else None
    if begins is not None:
        for step in range(begins, 30):
            wanted, state = new.policy.act(state, seen[step], np.full(cars, step == begins))
        np.testing.assert_allclose(answers[-1].actions, wanted, atol=1e-6)


@pytest.mark.parametrize("cost_s", [1e-5, 0.01])
def test_a_version_that_fails_on_a_sessions_history_leaves_it_to_the_older_one(
    folder, versions, cost_s
):
    service = _service(folder)
    old, new = versions
    service.alias_follower.current = old
    seen = _seen(12, 2)

    class Failing:
        initial_state = new.policy.initial_state

        def act(self, state, observation, is_first):
            raise FloatingPointError("an action is not finite")

    failing = new._replace(policy=Failing(), cost_s=(cost_s,) * 3)

    async def drive():
        answers = []
        for step in range(12):
            if step == 6:
                service.alias_follower.current = failing
            answers.append(await _act(service, seen[step]))
            await asyncio.sleep(0.02)
        return answers

    answers = asyncio.run(drive())
    service.close()
    assert [(answer.source, answer.model_version) for answer in answers] == [("model", 1)] * 12
    assert service.metrics.policy_errors == 1
    assert service.metrics.migrations == 0


def test_replaying_stops_at_the_episodes_beginning(folder, versions):
    service = _service(folder)
    old, new = versions
    service.alias_follower.current = old
    seen = _seen(10, 2)

    async def drive():
        for step in range(5):
            await _act(service, seen[step])
        for step in range(5, 8):
            await _act(service, seen[step], is_first=step == 5)
        service.alias_follower.current = new
        return await _act(service, seen[8])

    answer = asyncio.run(drive())
    service.close()
    state = new.policy.initial_state(2)
    for step in range(5, 9):
        wanted, state = new.policy.act(state, seen[step], np.full(2, step == 5))
    np.testing.assert_allclose(answer.actions, wanted, atol=1e-6)


def test_a_slow_batch_is_answered_by_the_brake_in_time_and_remembered(folder, versions):
    service = _service(folder)
    policy = load_policy(Registry(folder), 1)
    quick = policy.act

    may_finish = threading.Event()

    def slow(*arguments):
        assert may_finish.wait(60.0), "the late request waited for the policy"
        return quick(*arguments)

    policy.act = slow
    service.alias_follower.current = versions[0]._replace(policy=policy, cost_s=(SLOW_S,) * 3)

    async def drive():
        late = await _act(service, _seen(1, 3)[0], deadline_ms=20.0)
        busy = await _act(service, _seen(1, 3)[0])
        may_finish.set()
        await asyncio.sleep(SLOW_S)
        return late, busy, await _act(service, _seen(1, 3)[0])

    late, busy, later = asyncio.run(drive())
    service.close()
    assert late.source == "fallback"
    assert late.actions == [[0.0, -1.0]] * 3
    assert busy.source == "fallback"  # one observation at a time; nothing to hold yet
    assert later.source == "model"
    assert later.session_steps == 2


def test_a_car_from_another_replica_may_know_of_a_newer_version(folder):
    service = _service(folder)
    assert service.alias_follower.current.number == 1
    registry = Registry(folder)
    registry.promote(2)

    async def drive():
        asked = _ask(_seen(1, 1)[0], session="b")._replace(model_version=2)
        first = await service.act(asked, "me", service.now_s())
        for _ in range(1000):  # nobody waits for the read
            if service.alias_follower.current.number == 2:
                break
            await asyncio.sleep(0.01)
        again = _ask(_seen(1, 1)[0], session="b")._replace(model_version=2)
        return first, await service.act(again, "me", service.now_s())

    try:
        first, later = asyncio.run(drive())
        assert (first.source, first.model_version) == ("model", 1)
        assert (later.source, later.model_version) == ("model", 2)
    finally:
        service.close()
        registry.promote(1)


def test_cars_that_name_a_newer_version_share_one_look_at_the_registry(tmp_path):
    publish(tmp_path / "models")
    now_s = [1000.0]
    metrics = ServerMetrics()
    follower = AliasFollower(Registry(tmp_path / "models"), "champion", metrics, lambda: now_s[0])
    follower.load_first()
    service = ActionService(make_settings(registry=str(tmp_path / "models")), follower, metrics)
    shutil.rmtree(tmp_path / "models" / "aliases")  # so that each read is counted as an error

    async def ask_many():
        for car in range(50):
            asked = _ask(_seen(1, 1)[0], session=str(car))._replace(model_version=2)
            assert (await service.act(asked, "me", service.now_s())).model_version == 1
        await asyncio.wait_for(follower._refresh, 60.0)

    try:
        asyncio.run(ask_many())
        assert metrics.registry_errors == 1
        now_s[0] += 1.0
        asyncio.run(ask_many())
        assert metrics.registry_errors == 2
    finally:
        service.close()
