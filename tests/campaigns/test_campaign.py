"""A queue of trainings with processes that die, freeze, fail and are asked to stop."""

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from benchmarks.campaign_kills import run_round
from rlcar.campaigns import snapshot
from rlcar.campaigns.campaign import CampaignRun
from rlcar.campaigns.config import load_campaign
from rlcar.config import make_config
from rlcar.errors import ConfigError
from rlcar.runs.monitor import RunReader
from rlcar.runs.run import Run
from rlcar.storage import checkpoint
from rlcar.system import lease, process_state
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
COMMAND = "rlcar campaign run night.yaml"
PATIENCE_S = 240.0
TINY = {
    "local": True,
    "preset": "ppo",
    "mode": "test",
    "set": {
        "training.env_steps": 1024,
        "training.block_length": 32,
        "training.evaluate_every_env_steps": 4096,
        "training.checkpoint_every_s": 1e-6,
        "training.log_every_s": 1e-6,
        "ppo.epochs": 1,
    },
}
LONG = {"training.env_steps": 2_000_000}


@pytest.fixture
def write(tmp_path):
    def write(**tree):
        path = tmp_path / "night.yaml"
        path.write_text(yaml.safe_dump({"defaults": TINY, **tree}))
        return path

    return write


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"jobs": []}, "jobs = []: List should have at least 1 item"),
        ({"jobs": [{"name": "a"}], "slot": 2}, "unknown setting 'slot'; did you mean 'slots'?"),
        (
            {"jobs": [{"name": "a"}], "slots": 0},
            "slots = 0: Input should be greater than or equal to 1",
        ),
        ({"jobs": [{"name": "a"}, {"name": "a"}]}, "two jobs are called 'a'"),
        ({"jobs": [{"name": "../a"}]}, "jobs.0.name = '../a'"),
        ({"jobs": [{"name": "a" * 201}]}, "String should have at most 200 characters"),
        ({"jobs": [{"name": "logs"}]}, "no job can be called 'logs': runs/logs holds the logs"),
        (
            {"jobs": [{"name": "a", "presets": "nano"}]},
            "unknown setting 'jobs.0.presets'; did you mean 'preset'?",
        ),
        ({"jobs": [{"name": "a", "preset": "nona"}]}, "job a: unknown preset 'nona'"),
        ({"jobs": [{"name": "a", "set": {"ppo.epoch": 1}}]}, "unknown setting 'ppo.epoch'"),
    ],
)
def test_a_mistake_is_named_before_anything_starts(write, tree, said):
    with pytest.raises(ConfigError) as caught:
        load_campaign(write(**tree))
    assert said in str(caught.value)


def test_a_job_says_what_train_is_told(write):
    jobs = [{"name": "a", "seed": 7, "set": {"training.env_steps": 4096}}]
    words = load_campaign(write(jobs=jobs)).jobs[0].options()
    assert words[:5] == ["--local", "--preset", "ppo", "--mode", "test"]
    assert words[words.index("--seed") + 1] == "7"
    assert "training.env_steps=4096" in words


@pytest.mark.parametrize(("seeds", "expected"), [(3, [0, 1, 2]), ([4, 9], [4, 9])])
def test_seeds_are_several_jobs_in_one_line(write, seeds, expected):
    jobs = load_campaign(write(jobs=[{"name": "a", "seeds": seeds}])).jobs
    assert [(job.name, job.seed) for job in jobs] == [(f"a-{seed}", seed) for seed in expected]


@pytest.mark.parametrize("seeds", [0, -1, [], [1, 1], [0.5], "3", True, None])
def test_seeds_that_are_none_are_refused(write, seeds):
    with pytest.raises(ConfigError, match="give how many there are, such as 3, or a list"):
        load_campaign(write(jobs=[{"name": "a", "seeds": seeds}]))


def test_an_address_is_for_all_jobs_and_refuses_those_of_one_process(write):
    jobs = [{"name": "a", "local": False}]
    (job,) = load_campaign(write(jobs=jobs), "head:6379").jobs
    assert "head:6379" in job.options()
    with pytest.raises(ConfigError, match="job b trains in one process"):
        load_campaign(write(jobs=[{"name": "b"}]), "head:6379")


def test_jobs_that_differ_in_their_seed_and_length_alone_have_the_same_rate(write):
    jobs = load_campaign(
        write(
            jobs=[
                {"name": "a", "seed": 1},
                {"name": "b", "seed": 2, "set": {"training.env_steps": 4096}},
                {"name": "c", "set": {"ppo.epochs": 2}},
                {"name": "d", "preset": "sac", "algorithm": "sac"},
            ]
        )
    ).jobs
    first, longer, other_settings, other_algorithm = (job.work(job.resolved()) for job in jobs)
    assert first.settings == longer.settings
    assert (first.total, longer.total) == (1024, 4096)
    assert first.settings != other_settings.settings
    assert first.kind == other_settings.kind != other_algorithm.kind


@pytest.mark.parametrize(
    ("job", "is_local"),
    [
        ({}, False),
        ({"local": True}, True),
        ({"local": False}, False),
        ({"preset": "fused-ppo", "mode": "standard"}, True),
    ],
)
def test_a_job_trains_on_ray_unless_it_says_otherwise_or_needs_one_process(tmp_path, job, is_local):
    path = tmp_path / "night.yaml"
    path.write_text(yaml.safe_dump({"jobs": [{"name": "a", "simulators": 2, **job}]}))
    (loaded,) = load_campaign(path).jobs
    assert ("--local" in loaded.options()) == is_local
    assert ("--simulators" in loaded.options()) != is_local


def test_the_example_of_the_documentation_is_a_campaign(tmp_path):
    page = (Path(__file__).parents[2] / "docs/how-to/campaigns.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "night.yaml").write_text(example)
    jobs = {job.name: job for job in load_campaign(tmp_path / "night.yaml").jobs}
    assert {"nano-0", "nano-1", "wide", "far"} == set(jobs)
    assert {"--simulators", "--address"} < set(jobs["far"].options())
    assert "--local" not in jobs["far"].options()
    assert COMMAND in re.findall(r"^rlcar campaign.*", page, re.MULTILINE)


def run_until(campaign, question):
    """Steps on until `question()` is true; every process ends with the test."""
    end_s = time.monotonic() + PATIENCE_S
    while not question():
        assert time.monotonic() < end_s, [(one.job.name, one.state) for one in campaign.jobs]
        campaign.step()
        time.sleep(0.05)


@pytest.fixture
def start(write, tmp_path):
    started = []

    def start(**tree):
        started.append(CampaignRun(load_campaign(write(**tree)), tmp_path / "runs"))
        return started[-1]

    yield start
    for campaign in started:
        for one in campaign.jobs:
            if one.process is not None:
                one.process.kill()


@pytest.mark.long
@pytest.mark.slow
def test_never_more_than_the_slots_run_and_what_cannot_work_fails_at_once(start, tmp_path):
    campaign = start(
        slots=1,
        retries=1,
        backoff_s=0.1,
        jobs=[{"name": "good"}, {"name": "bad", "env": "rlcar/NoSuch-v0"}],
    )
    most = 0

    def is_over():
        nonlocal most
        most = max(most, sum(one.state == "running" for one in campaign.jobs))
        return campaign.is_over()

    run_until(campaign, is_over)
    assert most == 1
    states = {one.name: (one.state, one.failures, one.entry.failure) for one in campaign.jobs}
    assert states == {"bad": ("failed", 1, "configuration"), "good": ("done", 0, "")}
    assert "NoSuch" in campaign.jobs[1].reason
    assert (tmp_path / "runs/good/report.json").exists()
    again = start(slots=1, jobs=[{"name": "good"}])
    assert again.is_over(), "what is done is not done again"


@pytest.mark.long
@pytest.mark.slow
def test_a_frozen_job_is_killed_and_goes_on_from_its_checkpoint(start, tmp_path):
    jobs = [{"name": "cold", "set": LONG}]
    campaign = start(slots=1, backoff_s=0.1, frozen_after_s=8.0, jobs=jobs)
    (job,) = campaign.jobs
    checkpoints = tmp_path / "runs/cold/checkpoints"
    run_until(campaign, lambda: checkpoint.latest(checkpoints) is not None)
    frozen = job.process.pid
    os.kill(frozen, signal.SIGSTOP)
    reached = checkpoint.latest(checkpoints).env_steps
    run_until(campaign, lambda: job.failures == 1)
    assert job.reason.startswith("frozen for ")
    with pytest.raises(ProcessLookupError):
        os.kill(frozen, 0)
    run_until(campaign, lambda: job.state == "running")
    assert job.process.pid != frozen
    run_until(campaign, lambda: checkpoint.latest(checkpoints).env_steps > reached)
    campaign.stop()
    assert RunReader(tmp_path / "runs/cold").status().state == "stopped"


@pytest.mark.long
@pytest.mark.slow
def test_a_running_campaign_is_steered_from_other_terminals(write, tmp_path, rlcar):
    """Pause, resume, slots, watch and retry, while two jobs train and one cannot work."""
    runs = tmp_path / "runs"
    jobs = [{"name": "a", "set": LONG}, {"name": "b", "set": LONG}]
    file = write(slots=2, backoff_s=0.1, jobs=[*jobs, {"name": "bad", "env": "rlcar/NoSuch-v0"}])
    command = [sys.executable, "-m", "rlcar.cli", "campaign", "run", str(file)]
    said = tmp_path / "said"
    with said.open("w") as output:
        process = subprocess.Popen(
            [*command, "--runs", str(runs)], stdout=output, stderr=subprocess.STDOUT
        )

    def told(*words):
        code, text, error = rlcar("campaign", *words, "--runs", str(runs))
        assert code == 0, error
        return text + error

    def await_states(**expected):
        end_s = time.monotonic() + PATIENCE_S
        while True:
            if (runs / "_campaign/status.json").exists():
                seen = {job.name: job.state for job in snapshot.read(runs).jobs}
                if seen.items() >= expected.items():
                    return
            assert time.monotonic() < end_s, (expected, said.read_text())
            assert process.poll() is None, said.read_text()
            time.sleep(0.1)

    def has_saved():
        return all(checkpoint.latest(runs / name / "checkpoints") for name in "ab")

    try:
        await_states(bad="failed")
        wait_until(has_saved, PATIENCE_S)
        assert "done: " in told("pause")
        await_states(a="waiting", b="waiting")
        assert "paused" in told("status")
        reached = {name: checkpoint.latest(runs / name / "checkpoints").env_steps for name in "ab"}
        for name in "ab":
            assert RunReader(runs / name).status().state == "stopped"
        assert "done: up to 1 jobs run at once" in told("slots", "1")
        told("resume")
        end_s = time.monotonic() + PATIENCE_S
        while sum(job.state == "running" for job in snapshot.read(runs).jobs) != 1:
            assert time.monotonic() < end_s
            time.sleep(0.1)
        (running,) = (job.name for job in snapshot.read(runs).jobs if job.state == "running")
        wait_until(
            lambda: checkpoint.latest(runs / running / "checkpoints").env_steps > reached[running],
            PATIENCE_S,
        )
        assert "done: job bad waits for a slot" in told("retry", "bad")
        told("slots", "2")
        await_states(a="running", b="running")
        watching = subprocess.Popen(
            [*command[:4], "watch", "--runs", str(runs), "--every", "0.3"],
            stdout=subprocess.PIPE,
            text=True,
        )
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130, said.read_text()
        shown, _ = watching.communicate(timeout=PATIENCE_S)
        assert watching.returncode == 0
        assert "the campaign was stopped" in " ".join(shown.split())
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)


SLOW = {
    "env": "tests.support.slow_environment:TestLong-v0",
    "set": {"training.env_steps": 512, "training.evaluate_every_env_steps": 512},
}


@pytest.fixture
def slow_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.usefixtures("slow_environment")
def test_a_slow_evaluation_is_not_frozen_and_an_environment_that_hangs_is(start, tmp_path):
    """An evaluation takes 20 s, longer than a job may go without a sign of life."""
    jobs = [{"name": "slow", **SLOW}]
    campaign = start(slots=1, backoff_s=0.1, retries=0, frozen_after_s=8.0, jobs=jobs)
    (job,) = campaign.jobs
    run_until(campaign, campaign.is_over)
    assert (job.state, job.failures) == ("done", 0), (tmp_path / "runs/logs/slow.log").read_text()

    (tmp_path / "stuck").touch()
    jobs = [{"name": "stuck", **SLOW}]
    campaign = start(slots=1, backoff_s=0.1, retries=0, frozen_after_s=8.0, jobs=jobs)
    (job,) = campaign.jobs
    run_until(campaign, campaign.is_over)
    assert job.state == "failed"
    assert job.reason.startswith("frozen for ")


def test_what_a_lost_host_left_is_no_sign_that_the_new_process_is_frozen(start, tmp_path):
    """The new process may wait for that host's lease to expire: it must not be killed for it."""
    folder = tmp_path / "runs/job"
    with Run(folder, make_config(mode="test")):
        pass
    about = process_state.describe("running") | {"host": "lost", "lease": 1, "stage": "working"}
    process_state.write(folder, about | {"silent_s": 500.0})
    os.utime(folder / "process.json", (1.0, 1.0))
    campaign = start(slots=1, retries=0, frozen_after_s=1.0, jobs=[{"name": "job"}])
    (job,) = campaign.jobs
    campaign.step()
    assert job.run.state == "frozen", "the folder alone looks like it"
    # However soon a job of this campaign counts as frozen, the lease takes its time to expire.
    for waited_s in (0.0, lease.WAIT_S):
        job.started_s -= waited_s
        campaign._looked_s = 0.0
        campaign.step()
        assert (job.state, job.failures) == ("running", 0)


@pytest.mark.long
@pytest.mark.slow
def test_a_killed_job_goes_on_and_ctrl_c_saves_all(write, tmp_path):
    runs = tmp_path / "runs"
    write(slots=2, backoff_s=0.1, jobs=[{"name": "a", "set": LONG}, {"name": "b", "set": LONG}])
    command = [sys.executable, "-m", "rlcar.cli", *COMMAND.split()[1:]]
    said = tmp_path / "said"
    with said.open("w") as file:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=file, stderr=subprocess.STDOUT)
    try:

        def has_saved(name, after=0):
            end_s = time.monotonic() + PATIENCE_S
            while True:
                save = checkpoint.latest(runs / name / "checkpoints")
                if save is not None and save.env_steps > after:
                    return save.env_steps
                assert time.monotonic() < end_s, said.read_text()
                assert process.poll() is None, said.read_text()
                time.sleep(0.05)

        has_saved("b")
        has_saved("a")
        about = yaml.safe_load((runs / "a/process.json").read_text())
        os.kill(about["pid"], signal.SIGKILL)
        before = checkpoint.latest(runs / "a/checkpoints").env_steps
        has_saved("a", after=before)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130, said.read_text()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)
    text = said.read_text()
    assert "figure failures=1" in text
    assert f"continue with: {COMMAND}" in text
    for name in ("a", "b"):
        assert RunReader(runs / name).status().state == "stopped"


@pytest.mark.long
@pytest.mark.slow
def test_a_killed_campaign_adopts_its_jobs_keeps_its_counts_and_refuses_a_second(write, tmp_path):
    """The kill of `kill -9`, twice; the job goes on meanwhile, with one process."""
    kills = run_round(tmp_path / "kills", 2, random.Random(0))
    assert [kill.problems for kill in kills] == [[], []]
