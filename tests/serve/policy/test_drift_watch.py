"""The drift of served versions: which laps count, which arms, and what the server shows of it."""

import logging
import time
from xml.etree import ElementTree

import httpx
import numpy as np
import pytest

from rlcar.registry import Registry
from serve.api.outcomes import Outcome, no_executions
from serve.api.schema import CheckedRequest, ObservationBatch
from serve.client import DriveClient
from serve.policy.drift_watch import MOST_CARS, DriftWatch
from serve.policy.policy import load_policy
from tests.serve.drifting import STEPS, acted, observed, publish_watched
from tests.serve.served import publish, serving
from tests.support.waiting import wait_until

EXPIRY_S = 60.0
BIAS = np.array([1.1, 1.1, 1.1, 1.1, 1.1, 1.0], np.float32)


@pytest.fixture(scope="module")
def watched_folder(tmp_path_factory):
    """Version 2 has a reference and is champion; version 1 is the same without one."""
    folder = tmp_path_factory.mktemp("registry") / "models"
    assert publish_watched(folder) == 2
    return folder


@pytest.fixture(scope="module")
def policy(watched_folder):
    return load_policy(Registry(watched_folder))


@pytest.fixture
def watch(watched_folder):
    return DriftWatch(Registry(watched_folder), EXPIRY_S)


class Driving:
    """Simulated time, in which cars drive laps one after the other."""

    def __init__(self, watch, policy):
        self.watch, self.policy, self.now_s = watch, policy, 0.0

    def drive(self, laps, *, version=2, seed=9, factor=1.0, human_at=None, cars=None):
        """Drives laps, each by a car of one session, and lets the watch look at them."""
        seen = np.clip(observed(laps, seed) * factor, 0.0, 1.0).astype(np.float32)
        actions = acted(self.policy, np.nan_to_num(seen))
        cars = cars or self.watch.begin(laps)
        executed = None
        for step in range(STEPS + 1):
            last = np.full(laps, step == STEPS)
            if human_at is not None:
                executed = no_executions(laps, 2)
                executed.driver[:] = 4 if step == human_at + 1 else 0
            outcome = Outcome(None, last, ~last & False, executed)
            row = min(step, STEPS - 1)
            batch = ObservationBatch(seen[row], np.full(laps, step == 0))
            request = CheckedRequest(batch, False, "car", step, None, None, outcome)
            self.watch.note(cars, version, request, actions[row])
        self.now_s += 15.0
        self.watch.turn(self.now_s, 1e9 + self.now_s)
        return self.watch.reports[version]


@pytest.fixture
def driving(watch, policy):
    return Driving(watch, policy)


def test_unchanged_laps_are_no_drift_and_ten_biased_ones_are(driving, caplog):
    for seed in range(5):
        report = driving.drive(10, seed=10 + seed)
    assert (report.laps, report.is_drift, report.reference_laps) == (50, False, 48)
    assert max(one.value / one.threshold for one in report.window.findings) < 1.0
    with caplog.at_level(logging.WARNING):
        report = driving.drive(10, factor=BIAS)
    assert (report.is_drift, report.alarms, report.since_unix_s) == (True, 1, 1e9 + driving.now_s)
    assert "version 2 drifts: " in caplog.text
    assert "over the last 10 laps (threshold" in caplog.text
    driving.drive(9, seed=20)
    assert driving.watch.reports[2].is_drift  # not yet a whole window without a finding
    assert not driving.drive(10, seed=21).is_drift
    assert "version 2 drives as in its evaluation again" in caplog.text


def test_laps_with_a_person_at_the_wheel_do_not_count(driving):
    assert driving.drive(12, factor=BIAS, human_at=STEPS - 1).laps == 0
    assert driving.drive(12, factor=BIAS, human_at=3).laps == 0
    assert driving.drive(12).laps == 12


def test_a_lap_that_two_versions_drive_belongs_to_neither_and_arms_are_apart(driving, watch):
    cars = watch.begin(1)
    for step in range(STEPS):
        batch = ObservationBatch(observed(1, 0)[step], np.array([step == 0]))
        request = CheckedRequest(batch, True, "car", step, None, None, None)
        watch.note(cars, 1 if step < 30 else 2, request, np.zeros((1, 2), np.float32))
    driving.drive(12, cars=None)
    report = driving.drive(12, version=1, factor=BIAS)
    assert watch.reports[2].laps == 12
    assert not watch.reports[2].is_drift
    assert report.problem is not None
    assert "version 1 holds no reference distributions" in report.problem


def test_the_lap_that_began_first_is_counted_first(driving, watch, policy):
    """A car that waits on its lap holds back the laps of others for five seconds."""
    slow = watch.begin(1)
    batch = ObservationBatch(observed(1, 0)[0], np.array([True]))
    request = CheckedRequest(batch, True, "slow", 0, None, None, None)
    watch.note(slow, 2, request, np.zeros((1, 2), np.float32))
    assert driving.drive(12).laps == 0
    driving.now_s += 6.0
    watch.turn(driving.now_s, 0.0)
    assert watch.reports[2].laps == 12
    assert not slow.is_forgotten
    driving.now_s += EXPIRY_S
    watch.turn(driving.now_s, 0.0)
    assert slow.is_forgotten


def test_the_number_of_watched_cars_is_bounded_and_freed(driving, watch):
    assert watch.begin(MOST_CARS + 1) is None
    driving.drive(MOST_CARS)
    assert watch.begin(1) is None
    driving.now_s += 2 * EXPIRY_S
    watch.turn(driving.now_s, 0.0)
    assert watch.begin(1) is not None


def test_cars_that_never_act_are_freed_too(watch):
    assert watch.begin(MOST_CARS) is not None
    assert watch.begin(1) is None
    watch.turn(1.0, 0.0)
    watch.turn(0.5 + EXPIRY_S, 0.0)
    assert watch.begin(1) is None
    watch.turn(2.0 + EXPIRY_S, 0.0)
    assert watch.begin(MOST_CARS) is not None
    (unwatched,) = [one for one in watch.collect() if one.name == "rlcar_drift_unwatched_cars"]
    assert unwatched.samples[0].value == 2.0


def test_cars_that_act_only_after_a_long_time_are_watched_again(driving, watch):
    cars = watch.begin(12)
    watch.turn(1.0, 0.0)
    watch.turn(2.0 + EXPIRY_S, 0.0)
    assert cars.is_forgotten
    driving.now_s = 3.0 + EXPIRY_S
    assert driving.drive(12, cars=cars).laps == 12
    assert watch.begin(MOST_CARS) is None  # they are counted again
    assert watch.begin(MOST_CARS - 12) is not None


def test_sessions_that_begin_while_the_queue_is_full_are_not_counted(watch):
    for _ in range(20_000):
        watch.note_lap(2, None, None)
    assert watch.begin(MOST_CARS) is None
    watch.turn(0.0, 0.0)
    assert watch.begin(MOST_CARS) is not None


def test_a_car_that_acts_every_four_seconds_holds_back_the_others_not_for_long(driving, watch):
    slow = watch.begin(1)

    def act(is_first):
        batch = ObservationBatch(observed(1, 0)[0], np.array([is_first]))
        request = CheckedRequest(batch, True, "slow", None, None, None, None)
        watch.note(slow, 2, request, np.zeros((1, 2), np.float32))

    act(True)
    assert driving.drive(12).laps == 0
    laps = []
    for _ in range(3):
        act(False)
        driving.now_s += 4.0
        watch.turn(driving.now_s, 0.0)
        laps.append(watch.reports[2].laps)
    assert laps == [0, 0, 12]  # three times the longest lap of the evaluation are 9 s


def test_reported_laps_are_compared_with_the_evaluation(driving, watch):
    driving.drive(1)
    for _ in range(20):
        watch.note_lap(2, 59.0, True)
    report = driving.drive(1)
    assert not report.reward.is_low
    assert not report.success.is_low
    for index in range(80):
        watch.note_lap(2, 50.0, index % 2 == 0)
    report = driving.drive(1)
    assert report.reward.is_low
    assert report.reward.shortfall == pytest.approx(1 - 51.8 / 60)
    assert report.success.is_low
    assert report.success.mean == pytest.approx(0.6)
    lines = [metric for metric in watch.collect() if metric.name == "rlcar_drift_reward_ratio"]
    assert lines[0].samples[0].value == pytest.approx(51.8 / 60)


def test_reported_laps_are_compared_at_most_every_ten_seconds(driving, watch):
    compared = []
    for pause_s in (0.0, 5.0, 5.0):
        for _ in range(20):
            watch.note_lap(2, 59.0, True)
        driving.now_s += pause_s
        watch.turn(driving.now_s, 0.0)
        compared.append(watch.reports[2].reward.laps)
    assert compared == [20, 20, 60]


def test_a_version_that_drives_no_longer_raises_no_alerts(driving, watch):
    def gauges():
        found = {one.name: [sample.value for sample in one.samples] for one in watch.collect()}
        return [found[f"rlcar_drift_{name}"] for name in ("detected", "reward_low", "success_low")]

    for _ in range(20):
        watch.note_lap(2, 40.0, False)
    assert driving.drive(10, factor=BIAS).is_drift
    assert gauges() == [[1.0], [1.0], [1.0]]
    driving.now_s += 599.0
    watch.turn(driving.now_s, 0.0)
    assert gauges() == [[1.0], [1.0], [1.0]]
    driving.now_s += 2.0
    watch.turn(driving.now_s, 0.0)
    assert gauges() == [[], [], []]
    assert watch.reports[2].is_silent
    report = driving.drive(10, factor=BIAS)
    assert (report.is_silent, report.is_drift) == (False, True)
    assert gauges() == [[1.0], [1.0], [1.0]]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"observation_size": 7}, "about observations of 7 numbers, and the policy takes 6"),
        ({"mean": [[None] * 8] * 48}, "mean holds a number that is not finite"),
        ({"format": 9}, "the reference has the format '9', and this rlcar reads 1"),
        ({"edges": None}, "the reference is damaged"),
    ],
)
def test_a_bad_reference_is_one_sentence_and_the_server_goes_on(
    tmp_path, caplog, policy, changes, sentence
):
    folder = tmp_path / "models"
    number = publish_watched(folder, **changes)
    driving = Driving(DriftWatch(Registry(folder), EXPIRY_S), policy)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            report = driving.drive(2, version=number)
    assert sentence in report.problem
    assert caplog.text.count(sentence) == 1
    assert "Traceback" not in caplog.text


def test_an_observation_that_is_not_finite_leaves_the_lap_out(driving):
    assert driving.drive(12, factor=np.array([np.nan, 1, 1, 1, 1, 1], np.float32)).laps == 0
    assert driving.drive(12).laps == 12


def test_noting_an_answer_costs_microseconds(watch):
    cars = watch.begin(1)
    batch = ObservationBatch(observed(1, 0)[0], np.array([True]))
    request = CheckedRequest(batch, True, "car", 0, None, None, None)
    action = np.zeros((1, 2), np.float32)
    began_s = time.process_time()
    for _ in range(10_000):
        watch.note(cars, 2, request, action)
    assert (time.process_time() - began_s) / 10_000 < 2e-5


def test_a_server_shows_the_drift_of_biased_cars(watched_folder):
    seen = np.clip(observed(12, 33) * BIAS, 0.0, 1.0)
    with serving(watched_folder) as server:
        url = f"http://127.0.0.1:{server.port}"
        assert httpx.get(f"{url}/v1/drift").json() == {"versions": []}
        assert httpx.get(f"{url}/v1/drift.svg").status_code == 404
        with DriveClient(url, session="biased") as car:
            for step in range(STEPS):
                car.act(seen[step], np.full(12, step == 0))
            car.act(seen[0], np.ones(12, bool))
            wait_until(lambda: _versions(url) and _versions(url)[0]["laps"] == 12)
        (version,) = _versions(url)
        assert (version["model_version"], version["drift"], version["alarms"]) == (2, True, 1)
        assert [test["test"] for test in version["tests"]] == ["psi", "ks", "energy"]
        picture = httpx.get(f"{url}/v1/drift.svg?version=2")
        assert picture.headers["content-type"].startswith("image/svg+xml")
        assert "Version 2: drift" in "".join(ElementTree.fromstring(picture.text).itertext())
        assert httpx.get(f"{url}/v1/drift.svg?version=x").status_code == 422
        metrics = httpx.get(f"{url}/metrics").text
        assert 'rlcar_drift_detected{model_version="2"} 1.0' in metrics
        assert 'rlcar_drift_score{model_version="2",test="ks"}' in metrics


def _versions(url):
    return httpx.get(f"{url}/v1/drift").json()["versions"]


def test_a_version_without_reference_is_said_once(tmp_path, caplog):
    publish(tmp_path / "models", seed=1)
    with serving(tmp_path / "models") as server, caplog.at_level(logging.WARNING):
        url = f"http://127.0.0.1:{server.port}"
        with DriveClient(url, session="car") as car:
            for step in range(5):
                car.act(observed(1, 0)[step], is_first=step == 0)
                wait_until(lambda: _versions(url))
        (version,) = _versions(url)
        assert not version["watched"]
        assert "holds no reference distributions" in version["problem"]
    assert caplog.text.count("holds no reference distributions") == 1
