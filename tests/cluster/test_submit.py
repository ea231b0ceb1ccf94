"""What a job's command becomes."""

import pytest

from cluster.submit import DEFAULT_RUNS, entrypoint_of
from rlcar.errors import UserError


def entrypoint(*arguments, takes_address=True, python="python"):
    return entrypoint_of(arguments, takes_address=takes_address, python=python)


def test_a_training_joins_the_cluster_it_is_on_and_keeps_its_run_after_the_job():
    assert entrypoint("train", "--mode", "test") == (
        f"python -m rlcar.cli train --mode test --address auto --runs {DEFAULT_RUNS}"
    )
    assert entrypoint("train", "--runs", "/shared/runs").endswith("--address auto")
    assert entrypoint("train", "--runs=s3://bucket/runs").endswith("--address auto")


def test_a_local_training_stays_one_process():
    assert "--address" not in entrypoint("train", "--local")


def test_a_command_without_address_gets_none():
    assert entrypoint("evaluate", "/runs/x", takes_address=False, python="/opt/python 3") == (
        "'/opt/python 3' -m rlcar.cli evaluate /runs/x"
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
