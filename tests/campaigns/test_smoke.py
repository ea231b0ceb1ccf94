"""The small jobs of a host train with each back end, and leave out what is not installed."""

import pytest

from rlcar.campaigns.smoke import JOBS, SmallJob, run_small_jobs

ATARI = [job for job in JOBS if job.needs == "ale_py"]


def test_a_job_whose_package_is_missing_is_left_out(tmp_path):
    job = SmallJob("games of tomorrow", ("--local",), needs="no_such_package")
    (result,) = run_small_jobs((job,), tmp_path)
    assert (result.back_end, result.state) == ("games of tomorrow", "not installed")
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_an_atari_game_is_trained(tmp_path):
    (result,) = run_small_jobs(tuple(ATARI), tmp_path)
    assert (result.state, result.reason) == ("passed", "")
