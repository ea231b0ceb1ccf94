"""A training that is started again, and one that fails however often it is started."""

import pytest

from cluster.chaos.training_process import TrainingProcess
from rlcar.errors import UserError


def test_a_training_that_fails_again_and_again_is_given_up_with_its_last_line(tmp_path):
    training = TrainingProcess(tmp_path / "run", ["--preset", "sheep"], most_failures=1)
    with pytest.raises(
        UserError, match=r"failed 2 times without being killed, with exit code 2; .*sheep"
    ):
        training.finish(limit_s=60)
    assert training.restarts == 1
    assert not training.is_done()


@pytest.mark.long
@pytest.mark.slow
def test_a_killed_driver_is_started_again_and_one_that_is_done_is_not(tmp_path):
    tiny = ["--local", "--mode", "test", "--set", "training.env_steps=256"]
    training = TrainingProcess(tmp_path / "run", tiny, most_failures=0)
    first = training.pid
    training.kill()
    assert training.finish(limit_s=120), training.last_line()
    assert training.restarts == 1
    assert training.pid != first
    training.restart_if_dead()
    assert training.restarts == 1
