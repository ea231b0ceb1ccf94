"""What `rlcar train` recommends at its end, and how an interrupted one is continued."""

from pathlib import Path

import pytest

from rlcar.cli.next_commands import next_commands
from rlcar.cli.train_options import Launch
from rlcar.cli.train_plan import Choice, make_plan
from rlcar.errors import UserError

RUN = Path("runs/my run")
PLAIN = Launch(False, None, None, [], False, False, "models", False, 8001, "text")


def commands_of(text):
    head, *lines = text.splitlines()
    assert head == "next:"
    return [line[line.index("rlcar ") :] for line in lines]


@pytest.mark.parametrize(
    ("registry", "version", "is_race", "expected"),
    [
        (
            *("models", None, True),
            [
                "rlcar watch 'runs/my run'",
                "rlcar evaluate 'runs/my run' --tracks circuits",
                "rlcar models publish 'runs/my run'",
                "rlcar serve 'runs/my run'",
            ],
        ),
        (
            *("s3://bucket/models", 7, True),
            [
                "rlcar watch 'runs/my run' --registry s3://bucket/models",
                "rlcar evaluate 'runs/my run' --tracks circuits",
                "rlcar models promote 7 --registry s3://bucket/models",
                "rlcar serve --alias 7 --registry s3://bucket/models",
            ],
        ),
        (
            *("models", None, False),
            ["rlcar evaluate 'runs/my run'", "rlcar models publish 'runs/my run'"],
        ),
        (*("models", 3, False), ["rlcar evaluate 'runs/my run'"]),
    ],
)
def test_the_end_of_a_training_names_the_commands_to_try(registry, version, is_race, expected):
    text = next_commands(RUN, registry, version, is_race=is_race)
    assert commands_of(text) == expected


def test_an_environment_that_can_be_drawn_is_filmed():
    text = next_commands(RUN, "models", 3, is_race=False, can_film=True)
    assert commands_of(text)[1] == "rlcar render 'runs/my run' --out episode.gif"


@pytest.mark.parametrize(("resume", "run"), [(None, "RUN"), ("runs/mine", "runs/mine")])
def test_the_mode_eval_names_the_command_that_evaluates(resume, run):
    nothing = [None] * 5
    choice = Choice(*nothing, None, "models", "eval", None, [], None)
    with pytest.raises(UserError, match=f"trains nothing.*: rlcar evaluate {run}$"):
        make_plan(choice, Path("runs"), None, resume)


def test_nothing_that_needs_an_environment_is_recommended_for_data_without_one():
    text = next_commands(RUN, "models", None, is_race=False, has_environment=False)
    assert commands_of(text) == [
        "rlcar ope 'runs/my run' --data data/other",
        "rlcar models publish 'runs/my run'",
    ]


def test_an_interrupted_training_is_continued_with_its_own_options():
    assert PLAIN.resume_command(RUN) == "rlcar train --resume 'runs/my run'"
    launch = PLAIN._replace(
        address="head:6379",
        simulators="auto",
        cluster_settings=["simulator_cpus=0.5", "replay_shards=2"],
        publish=True,
        registry="s3://bucket/models",
        page=True,
        page_port=9000,
        log_format="json",
    )
    assert launch.resume_command(Path("runs/a")) == (
        "rlcar train --resume runs/a --publish --page --address head:6379 --simulators auto "
        "--registry s3://bucket/models --page-port 9000 --log-format json "
        "--cluster simulator_cpus=0.5 --cluster replay_shards=2"
    )


def test_options_with_an_own_name_are_cluster_settings_too():
    launch = PLAIN._replace(simulators="4", cluster_settings=["simulator_cpus=0.5"])
    assert launch.all_cluster_settings() == ["simulators=4", "simulator_cpus=0.5"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"local": True, "simulators": "2"}, "--local runs in one process"),
        ({"debug_nans": True}, "add --local"),
        ({"log_format": "xml"}, "there are text and json"),
    ],
)
def test_options_that_exclude_each_other_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        PLAIN._replace(**changes).refuse_contradictions()
