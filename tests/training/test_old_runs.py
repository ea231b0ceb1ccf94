"""Runs that older code has written can be continued.

`tests/golden/formats/runs` holds one small run for each algorithm, written by commit e9f1239 with
`rlcar train --local --mode test --seed 7`. Never write these files again: they stand for the runs
that users have.
"""

import shutil
from pathlib import Path

import pytest

from rlcar.config import load_config
from rlcar.storage import checkpoint
from rlcar.training.loop import train

RUNS = Path(__file__).parents[1] / "golden" / "formats" / "runs"


@pytest.mark.parametrize("name", sorted(path.name for path in RUNS.iterdir()))
def test_a_run_of_older_code_is_continued(name, tmp_path):
    folder = tmp_path / name
    shutil.copytree(RUNS / name, folder)
    save = checkpoint.latest(folder / "checkpoints")
    assert save.env_steps == 512
    config = load_config(folder / "config.json", ["training.env_steps=576"])
    outcome = train(config, folder, save)
    assert outcome.summary["env_steps"] == 576
    continued = checkpoint.latest(folder / "checkpoints")
    assert continued.meta["train_steps"] > save.meta["train_steps"] > 0
