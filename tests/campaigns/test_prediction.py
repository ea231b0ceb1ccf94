"""Rates that jobs are predicted from, and the interval in which a campaign ends."""

import numpy as np
import pytest

from benchmarks.campaign_simulated import longest_first_s, simulate
from rlcar.campaigns.eta import AT_MOST_S, Past, predict_end
from rlcar.campaigns.gpus import GpuUse, read_uses
from rlcar.campaigns.prediction import Meter, Prediction, Predictor, Work
from rlcar.campaigns.processes import environment_of

NO_PAST = Past(0, 0.0, 0.0)


def test_a_rate_begins_with_the_first_progress_and_leaves_pauses_out():
    meter = Meter()
    meter.begin(0.0, 0.0)
    for now_s, done in ((5.0, 0.0), (30.0, 100.0), (40.0, 200.0), (50.0, 300.0)):
        meter.see(now_s, done)
    assert meter.measurement() == (200.0, 20.0)
    assert meter.start_s == 30.0
    meter.begin(1000.0, 250.0)  # continues at its checkpoint
    for now_s, done in ((1020.0, 250.0), (1030.0, 260.0), (1050.0, 660.0)):
        meter.see(now_s, done)
    assert meter.measurement() == (600.0, 40.0)


def test_the_start_and_the_final_evaluation_count_too_also_after_a_restart_of_the_campaign():
    works = {name: Work(1000.0, "env steps", "s", "k") for name in "ab"}
    predictor = Predictor(works)
    meter = predictor.meters["a"]
    meter.begin(0.0, 0.0)
    for now_s, done in ((30.0, 100.0), (60.0, 400.0), (120.0, 1000.0), (130.0, 1000.0)):
        meter.see(now_s, done)
    assert predictor.predict({"a": 900.0})["a"].remaining_s == pytest.approx(10.0)
    meter.end(160.0, is_done=True)
    assert (meter.start_s, meter.end_s) == (30.0, 40.0)
    later = Predictor(works)
    later.meters["a"].note(**meter.figures())
    for one in (predictor, later):
        assert one.predict({"b": 0.0})["b"].remaining_s == pytest.approx(30.0 + 100.0 + 40.0)
    later.meters["b"].begin(0.0, 0.0)
    later.meters["b"].see(20.0, 10.0)  # it works: no other start is to come
    assert later.predict({"b": 0.0})["b"].remaining_s == pytest.approx(140.0)


def test_an_end_that_no_calendar_reaches_and_slots_that_no_job_needs_are_no_error():
    predicted = {"a": Prediction(1e15, "guess", 1.0, "k")}
    interval = predict_end([], ["a"], predicted, 65_536, NO_PAST, np.random.default_rng(0))
    assert interval == (AT_MOST_S, AT_MOST_S, AT_MOST_S)


def test_a_job_is_predicted_from_itself_then_its_like_then_the_file():
    works = {
        "a": Work(1000.0, "env steps", "s1", "k1"),
        "a2": Work(4000.0, "env steps", "s1", "k1"),
        "b": Work(1000.0, "env steps", "s2", "k1"),
        "c": Work(1000.0, "episodes", "s3", "k2", hours=2.0),
        "d": Work(1000.0, "env steps", "s4", "k3"),
    }
    predictor = Predictor(works)
    predictor.meters["a"].note(500.0, 50.0, 20.0)
    found = predictor.predict({**dict.fromkeys(works, 0.0), "a": 500.0})
    assert {name: (one.source, one.remaining_s) for name, one in found.items()} == {
        "a": ("own", 50.0 + 20.0),  # to its start again
        "a2": ("settings", 400.0 + 20.0),
        "b": ("kind", 100.0 + 20.0),
        "c": ("hours", 7200.0),
        "d": ("guess", 100.0 + 20.0),
    }
    sigmas = [found[name].log_sigma for name in ("a", "a2", "b", "c", "d")]
    assert sigmas == sorted(sigmas)


def test_the_end_of_known_durations_is_that_of_longest_first():
    lengths_s = {"a": 4000.0, "b": 3000.0, "c": 2000.0, "d": 1500.0}
    predicted = {name: Prediction(s, "own", 1e-9, name) for name, s in lengths_s.items()}
    interval = predict_end([], list(lengths_s), predicted, 2, NO_PAST, np.random.default_rng(0))
    assert interval.likely_s == pytest.approx(5500.0, rel=0.1)
    assert interval.low_s < interval.likely_s < interval.high_s
    assert longest_first_s(list(lengths_s.values()), 2) == 5500.0


def test_simulated_campaigns_come_close_to_the_bound_and_end_within_their_intervals():
    outcomes = [simulate(seed) for seed in range(4)]
    for one in outcomes:
        assert one.makespan_s <= 1.1 * one.bound_s
    held = [
        report.at_s + report.eta.low_s <= one.makespan_s <= report.at_s + report.eta.high_s
        for one in outcomes
        for report in one.reports
    ]
    assert sum(held) >= 0.8 * len(held) > 8


def test_what_nvidia_smi_prints_is_assigned_to_the_job_that_has_the_process():
    devices = "GPU-1, 0, 83, 20000, 143771, 61\nGPU-2, 1, [N/A], 0, 143771, [N/A]\n"
    devices += "Unable to determine the device handle for GPU2: 0000:3D:00.0: Unknown Error\n"
    processes = "No devices\n100, GPU-1, 1200\n101, GPU-1, 300\n200, GPU-2, [N/A]\n999, GPU-1, 5\n"
    found = read_uses(devices, processes, {100: 100, 101: 100, 200: 200})
    assert found == {
        100: [GpuUse(0, 0.83, 1500.0, 143771.0, 61.0)],
        200: [GpuUse(1, None, None, 143771.0, None)],
    }


def test_slots_take_the_devices_in_turn_and_share_their_memory(monkeypatch):
    for name in ("XLA_PYTHON_CLIENT_PREALLOCATE", "XLA_PYTHON_CLIENT_MEM_FRACTION"):
        monkeypatch.delenv(name, raising=False)
    assert environment_of(0, 1, []) == {}
    assert environment_of(0, 2, []) == {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    assert environment_of(1, 2, [4, 5]) == {"CUDA_VISIBLE_DEVICES": "5"}
    assert environment_of(2, 3, [4, 5]) == {
        "CUDA_VISIBLE_DEVICES": "4",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.3")
    assert environment_of(2, 3, [4, 5]) == {"CUDA_VISIBLE_DEVICES": "4"}
