"""A real curriculum that is killed at random moments goes on at the right stage and attempt."""

import pytest

from benchmarks.curriculum_kills import Seen, compare, kill_repeatedly

BEFORE = Seen(["a", "b"], 512, (1, 1, "train"))


@pytest.mark.parametrize(
    ("now", "is_fine"),
    [
        (BEFORE, True),
        (BEFORE._replace(env_steps=768), True),
        (Seen(["a", "b", "c"], 0, (1, 1, "evaluate")), True),
        (BEFORE._replace(lines=["a"]), False),
        (BEFORE._replace(env_steps=256), False),
        (BEFORE._replace(place=(0, 1, "train")), False),
        (None, False),
    ],
)
def test_every_loss_is_a_problem(now, is_fine):
    assert (compare(BEFORE, now, "x") == []) is is_fine


@pytest.mark.long
@pytest.mark.slow
def test_a_curriculum_is_killed_three_times(tmp_path):
    result = kill_repeatedly(tmp_path, kills=3, seed=1)
    assert (result.kills, result.problems) == (3, [])


@pytest.mark.long
@pytest.mark.slow
def test_a_curriculum_is_killed_fifty_times(tmp_path):
    result = kill_repeatedly(tmp_path, kills=50, seed=2)
    assert (result.kills, result.problems) == (50, [])
