"""The trends and the bounds of a soak, also with a process that really leaks."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from rlcar.system.process_usage import Usage, measure
from serve.soak.sample import Sample
from serve.soak.traffic import Heard
from serve.soak.verdict import (
    fall_percent,
    fit_trend,
    judge,
    lasting_zombies,
    settled,
    summarise,
)

HEARD = Heard(5.0, 200, 0, 2.0, 9.0, 100, 0)
USAGE = Usage(3, 500.0, 40, 20, frozenset())
LEAKY = """
import sys, threading, time
kept, files, is_leaky = [], [], sys.argv[1] == "leaky"
print("ready", flush=True)
while True:
    time.sleep(0.02)
    if is_leaky:
        kept.append(bytearray(b"x" * 200_000))
        files.append(open("/dev/null"))
        if len(files) % 10 == 0:
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
"""


def make_sample(second, usage=USAGE, **changes):
    """Makes a sample of a training with 1.5 CPUs and a server with 0.1 of two CPUs."""
    groups = {
        "training": usage._replace(cpu_s=1.5 * second),
        "server": usage._replace(cpu_s=0.1 * second),
    }
    work = {"env_steps": 500.0 * second, "train_steps": 60.0 * second}
    made = Sample(second, groups, {"run": 5.0}, 0.4 * second, **work, heard=HEARD, versions=3,
                  restarts=0)  # fmt: skip
    return made._replace(**changes)


def steady(count=120):
    return [make_sample(5.0 * index) for index in range(count)]


def broken(samples):
    return {check.name for check in judge(samples)[0] if not check.is_kept}


def test_a_steady_soak_keeps_every_bound():
    assert broken(steady()) == set()
    found = summarise(steady())
    assert found["hours"] == pytest.approx(595.0 / 3600.0, abs=1e-3)
    assert (found["rss_slope_mb_per_min"], found["fd_slope"], found["zombies"]) == (0.0, 0.0, 0)
    assert found["broken"] == []


def test_the_slope_is_that_of_the_line_whatever_single_peaks_do():
    seconds = [5.0 * index for index in range(200)]
    values = [700.0 + second / 60.0 * 0.4 + 300.0 * (index % 20 == 3) for index, second in
              enumerate(seconds)]  # fmt: skip
    trend = fit_trend(seconds, values)
    assert trend.per_min == pytest.approx(0.4, rel=0.02)
    assert trend.low_per_min <= trend.per_min <= trend.high_per_min
    assert trend.at_end - trend.at_start == pytest.approx(0.4 * seconds[-1] / 60.0, rel=0.02)


def test_a_fit_of_a_whole_day_takes_the_medians_of_its_parts():
    seconds = [5.0 * index for index in range(17_280)]
    trend = fit_trend(seconds, [2.0 * second / 60.0 for second in seconds])
    assert trend.per_min == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda minute: {"usage": USAGE._replace(memory_mb=500 + 1.5 * minute)}, "resident memory"),
        (lambda minute: {"usage": USAGE._replace(files=40 + round(minute))}, "file descriptors"),
        (lambda minute: {"usage": USAGE._replace(threads=20 + round(minute))}, "threads"),
        (lambda minute: {"disk_mb": {"run": 5.0 + 2.0 * minute}}, "disk"),
        (lambda minute: {"restarts": int(minute > 8)}, "restarts"),
        (
            lambda minute: {"heard": HEARD._replace(failures=int(minute > 5))},
            "requests without the policy's action",
        ),
        (
            lambda minute: {"heard": HEARD._replace(lost_pages=int(minute == 5.0))},
            "times that the viewer lost the page",
        ),
        (
            lambda minute: {"usage": USAGE._replace(zombies=frozenset({(7, 1)}))},
            "zombies",
        ),
    ],
)
def test_each_bound_is_broken_by_what_it_is_for_alone(change, name):
    samples = [make_sample(5.0 * index, **change(index / 12.0)) for index in range(120)]
    assert broken(samples) == {name}


def test_a_measurement_that_is_missing_breaks_its_bound():
    assert {"resident memory", "file descriptors", "threads", "disk"} < broken([])
    assert "resident memory" in broken(steady(5))


MINUTES = [index / 12.0 for index in range(240)]


@pytest.mark.parametrize(
    ("memory_mb", "is_kept"),
    [
        (lambda minute: 900.0 + 1.5 * minute - 300.0 * (minute > 12.0), False),
        (lambda minute: 900.0 + 1.5 * minute - 300.0 * (minute > 6.0), False),
        (lambda minute: 900.0 + 2.0 * minute - 120.0 * max(0.0, min(1.0, minute - 12.0)), False),
        (lambda minute: 900.0 + 0.2 * minute - 300.0 * (minute > 12.0), True),
        (lambda minute: 900.0 - 300.0 * (minute > 12.0), True),
        (lambda minute: 900.0 + 20.0 * (minute % 3.0), True),  # gives its memory back
    ],
)
@pytest.mark.parametrize("noise_mb", [0.0, 4.0])
def test_a_fall_does_not_hide_a_leak_before_and_after_it(memory_mb, is_kept, noise_mb):
    noise = np.random.default_rng(0).normal(0.0, noise_mb, len(MINUTES))
    values = [memory_mb(minute) + more for minute, more in zip(MINUTES, noise, strict=True)]
    samples = [make_sample(60.0 * minute, USAGE._replace(memory_mb=value))
               for minute, value in zip(MINUTES, values, strict=True)]  # fmt: skip
    assert ("resident memory" not in broken(samples)) == is_kept


def machine(*, outside=lambda minute: 0.0, training=lambda minute: 1.0,
            answer=lambda minute: 1.0, is_waiting=lambda minute: False):  # fmt: skip
    """Makes samples of ten minutes on two CPUs.

    `outside` are the CPUs that other programs use. `training` and `answer` are the CPU time of an
    env step and of an answer, relative to the first. A training that waits does a quarter of it.
    """
    samples, cpu_s, answer_cpu_s, idle_s, env_steps = [], 0.0, 0.0, 0.0, 0.0
    for index in range(120):
        minute, heard = index / 12.0, HEARD._replace(answers=200)
        free_cpus = 2.0 - outside(minute) - 0.1 * answer(minute)
        cpus = min(1.5, free_cpus) * (0.25 if is_waiting(minute) else 1.0)
        if index:
            cpu_s += 5.0 * cpus
            answer_cpu_s += 5.0 * 0.1 * answer(minute)
            idle_s += 5.0 * (free_cpus - cpus)
            env_steps += 5.0 * cpus * 300.0 / training(minute)
        groups = {
            "training": USAGE._replace(cpu_s=cpu_s),
            "server": USAGE._replace(cpu_s=answer_cpu_s),
        }
        samples.append(make_sample(5.0 * index, groups=groups, idle_cpu_s=idle_s, heard=heard,
                                   env_steps=env_steps, train_steps=env_steps / 8))  # fmt: skip
    return samples


@pytest.mark.parametrize(
    "outside",
    [
        lambda minute: 0.15 * minute,  # grows
        lambda minute: 1.5 - 0.15 * minute,  # falls
        lambda minute: 1.2 * (minute > 6.0),  # begins
        lambda minute: 1.2 * (minute < 6.0),  # ends
    ],
)
def test_load_from_outside_is_no_slowdown_though_the_wall_rates_fall(outside):
    samples = machine(outside=outside)
    assert broken(samples) == set()
    wall = summarise(samples)["trends"]["env_steps_per_s"]
    assert abs(wall["at_end"] / wall["at_start"] - 1.0) > 0.25


@pytest.mark.parametrize(
    ("change", "names"),
    [
        # The work of a step grows: also where load from outside ends meanwhile, which hides it
        # from the rate per second.
        (
            {"training": lambda minute: 1.0 + 0.1 * minute},
            {
                f"fall of {one}_steps_per_{unit}"
                for one in ("env", "train")
                for unit in ("s", "cpu_s")
            },
        ),
        (
            {
                "training": lambda minute: 1 + 0.1 * minute,
                "outside": lambda minute: 1.4 - 0.14 * minute,
            },
            {"fall of env_steps_per_cpu_s", "fall of train_steps_per_cpu_s"},
        ),
        # The server keeps up with its clients, and needs more for each answer.
        ({"answer": lambda minute: 1.0 + 0.1 * minute}, {"fall of answers_per_cpu_s"}),
        # The training waits, and uses no CPU time meanwhile.
        (
            {"is_waiting": lambda minute: minute > 5.0},
            {"fall of env_steps_per_s", "fall of train_steps_per_s"},
        ),
    ],
)
def test_a_real_slowdown_is_found(change, names):
    assert broken(machine(**change)) == names


def test_a_training_without_any_row_breaks_its_bounds():
    samples = [sample._replace(env_steps=None) for sample in steady()]
    assert broken(samples) == {"fall of env_steps_per_s", "fall of env_steps_per_cpu_s"}


def test_memory_that_one_program_gives_back_does_not_hide_the_leak_of_another():
    samples = [
        make_sample(60.0 * minute, groups={
            "training": USAGE._replace(memory_mb=900.0 - 3.0 * minute, cpu_s=90.0 * minute),
            "server": USAGE._replace(memory_mb=200.0 + 1.5 * minute, cpu_s=6.0 * minute),
        })
        for minute in MINUTES
    ]  # fmt: skip
    assert broken(samples) == {"resident memory"}
    assert summarise(samples)["rss_slope_mb_per_min"] == pytest.approx(-1.5)


def test_the_warm_up_does_not_count():
    growing = [make_sample(5.0 * index, USAGE._replace(memory_mb=20.0 * min(index, 25)))
               for index in range(120)]  # fmt: skip
    assert settled(growing)[0].second == pytest.approx(150.0, abs=5.0)
    assert broken(growing) == set()


def test_a_child_that_was_just_about_to_be_waited_for_is_no_zombie():
    zombies = [frozenset({(index, 1)}) for index in range(20)]
    samples = [make_sample(5.0 * index, USAGE._replace(zombies=now))
               for index, now in enumerate(zombies)]  # fmt: skip
    assert lasting_zombies(samples) == 0


def test_noise_is_no_fall():
    seconds = [5.0 * index for index in range(60)]
    noisy = [500.0 + 100.0 * ((index * 7919) % 13 - 6) / 6.0 for index in range(60)]
    assert fall_percent(fit_trend(seconds, noisy)) == 0.0
    assert fall_percent(None) is None


@pytest.mark.parametrize("kind", ["leaky", "steady"])
def test_a_process_that_really_leaks_is_found(kind):
    process = subprocess.Popen([sys.executable, "-c", LEAKY, kind], stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        began_s, samples = time.monotonic(), []
        while len(samples) < 30:
            usage = measure([process.pid, os.getpid()])
            assert usage.processes == 2
            samples.append(make_sample(time.monotonic() - began_s, usage))
            time.sleep(0.05)
    finally:
        process.kill()
        process.communicate()
    leaks = {"resident memory", "file descriptors", "threads"}
    assert broken(samples) & leaks == (leaks if kind == "leaky" else set())
