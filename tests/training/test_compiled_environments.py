"""Every algorithm that drives trains on a compiled environment without anything of its own."""

import pytest

from rlcar.agents import ALGORITHMS
from rlcar.config import make_config
from rlcar.envs.compiled import COMPILED
from rlcar.evaluation.environment import spec_of
from rlcar.runs.metrics_file import read_metrics
from rlcar.training.loop import train

ONLINE = [name for name, algorithm in ALGORITHMS.items() if algorithm.learns_online]


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("environment", COMPILED)
@pytest.mark.parametrize("algorithm", ONLINE)
def test_every_algorithm_trains_and_is_evaluated(algorithm, environment, tmp_path):
    config = make_config(
        algorithm=algorithm,
        mode="test",
        environment=environment,
        overrides=[
            "training.env_steps=1024",
            "training.blocks_per_call=1",
            "training.evaluate_every_env_steps=512",
        ],
    )
    if not ALGORITHMS[algorithm].supports(spec_of(config)):
        pytest.skip(f"{algorithm} cannot use its actions")
    outcome = train(config, tmp_path / "run")
    assert outcome.summary["env_steps"] >= 1024
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert any("evaluation/success_rate" in row for row in rows)
    assert (tmp_path / "run" / "best").is_dir()
