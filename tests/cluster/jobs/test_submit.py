"""What a job's command becomes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ray.job_submission import JobDetails

from cluster.jobs.submit import DEFAULT_RUNS, entrypoint_of, exit_code, reason
from rlcar.errors import UserError

ROOT = Path(__file__).parents[3]


def entrypoint(*arguments, python="python"):
    return entrypoint_of(arguments, python)


def test_a_training_joins_the_cluster_it_is_on_and_keeps_its_run_after_the_job():
    assert entrypoint("train", "--mode", "test") == (
        f"python -m rlcar train --mode test --address auto --runs {DEFAULT_RUNS}"
    )
    assert entrypoint("train", "--runs", "/shared/runs").endswith("--address auto")
    assert entrypoint("train", "--runs=s3://bucket/runs").endswith("--address auto")


def test_a_sweep_is_kept_after_the_job_and_its_resume_is_no_folder():
    assert entrypoint("tune", "--resume", "tune_configs/smoke.yaml") == (
        "python -m rlcar tune --resume tune_configs/smoke.yaml --address auto "
        "--sweeps ~/rlcar-sweeps"
    )
    with pytest.raises(UserError, match="--sweeps sweeps is relative"):
        entrypoint("tune", "x.yaml", "--sweeps", "sweeps")


def test_a_local_training_stays_one_process():
    assert "--address" not in entrypoint("train", "--local")


def test_a_command_without_address_gets_none():
    assert entrypoint("evaluate", "/runs/x", python="/opt/python 3") == (
        "'/opt/python 3' -m rlcar evaluate /runs/x"
    )


def test_what_the_shell_would_take_apart_is_quoted():
    command = entrypoint("train", "--name", "a b; rm -r $HOME", "--runs", "/r")
    assert "--name 'a b; rm -r $HOME' " in command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runs", "runs"], "--runs runs is relative"),
        (["--runs=runs"], "--runs runs is relative"),
        (["--resume", "runs/x"], "--resume runs/x is relative"),
        (["--address", "head:6379"], "leave it out"),
    ],
)
def test_what_would_be_lost_with_the_job_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        entrypoint("train", *arguments)


def test_auto_resumes_what_is_on_the_cluster():
    assert "--resume auto" in entrypoint("train", "--resume", "auto")


def ended(status, **fields):
    return JobDetails(type="SUBMISSION", status=status, entrypoint="x", **fields)


@pytest.mark.parametrize(
    ("job", "code", "why"),
    [
        (ended("SUCCEEDED", driver_exit_code=0), 0, ""),
        (ended("STOPPED"), 130, ""),
        (ended("FAILED", driver_exit_code=2, message="Job entrypoint …"), 2, ""),
        (ended("FAILED", driver_exit_code=127), 127, "name one with --python"),
        (ended("FAILED", message="Traceback\n  x\nRuntimeEnvError: no disk\n"), 1, "no disk"),
        (ended("FAILED"), 1, "a reason that Ray does not report"),
    ],
)
def test_how_a_job_ended_is_its_exit_code_and_why_is_said_where_its_log_does_not(job, code, why):
    assert exit_code(job) == code
    assert why in reason(job)
    assert bool(reason(job)) == bool(why)


@pytest.mark.parametrize("program", ["rlcar", "rlcar.__main__"])
@pytest.mark.parametrize("words", [["train", "--mode", "test"], ["doctor", "--json"], ["--help"]])
def test_a_python_without_the_packages_says_so_in_a_sentence(program, words, tmp_path):
    """As on a head node whose `python` is not the one that Ray runs with."""
    command = [sys.executable, "-S", "-m", program, *words]  # -S: nothing that was installed
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert re.fullmatch(r"error: the Python \S+ lacks the package \w+: install .*\n", done.stderr)
    assert "--python" in done.stderr


def test_a_job_starts_the_program_that_says_what_is_missing():
    assert entrypoint("train").startswith("python -m rlcar train ")
