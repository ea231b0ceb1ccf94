"""The report of a compiled environment: a tiny training of the lander, evaluated and filmed."""

import json
import shutil

import numpy as np
import pytest

from rlcar.config import make_config
from rlcar.envs.compiled import COMPILED, make_compiled
from rlcar.errors import UserError
from rlcar.evaluation.environment import make_evaluation
from rlcar.evaluation.environment.compiled import score_episodes
from rlcar.evaluation.episodes import EVALUATION_INDEX, EpisodeResults, make_episodes
from rlcar.evaluation.run_report import evaluate_run
from rlcar.storage import checkpoint
from rlcar.storage.arrays import read_arrays
from rlcar.training.loop import train
from tests.support.tiny_run import trained

LANDER = "rlcar/Lander-v0"
ENVIRONMENT = COMPILED[LANDER]


def config(env_steps: int, **settings):
    return make_config(
        algorithm="ppo",
        mode="test",
        environment=LANDER,
        overrides=[
            f"training.env_steps={env_steps}",
            "training.cars=16",
            "training.block_length=32",
            "training.blocks_per_call=2",
            "training.checkpoint_every_s=1e-9",
            "training.checkpoints_kept=9",
            "environment.settings.time_limit_steps=250",
        ],
        **settings,
    )


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "lander"
    train(config(2048), folder)
    return folder


@pytest.mark.long
def test_a_fused_training_of_the_lander_resumes_bit_for_bit(run_folder, tmp_path):
    shutil.copytree(run_folder, tmp_path / "legs")
    for save in checkpoint.saves(tmp_path / "legs" / "checkpoints"):
        if save.env_steps > 1024:
            shutil.rmtree(save.path)
    half = checkpoint.latest(tmp_path / "legs" / "checkpoints")
    assert half.env_steps == 1024
    train(config(2048), tmp_path / "legs", half)
    ends = [
        read_arrays(checkpoint.latest(folder / "checkpoints").path / "state.safetensors")
        for folder in (run_folder, tmp_path / "legs")
    ]
    for name, array in ends[0].items():
        np.testing.assert_array_equal(array, ends[1][name], err_msg=name)


def test_the_report_has_all_policies_on_the_same_unseen_episodes(run_folder, capsys):
    evaluate_run(run_folder, episodes=8)
    report = json.loads((run_folder / "report.json").read_text())
    assert set(report["policies"]) == {"lander-ppo", "guidance", "random"}
    assert report["policies"]["guidance"]["success_rate"] == 1.0
    assert report["policies"]["random"]["success_rate"] == 0.0
    low, high = report["policies"]["guidance"]["success_rate_interval"]
    assert 0.5 < low < high == 1.0
    assert sum(report["reasons"].values()) == report["episodes"] == 8
    printed = capsys.readouterr().out
    for name in ("success_rate", "episode_reward", *ENVIRONMENT.figures):
        assert f"figure {name}=" in printed
    for name in ("episodes.png", "ends.png", "learning_curve.png"):
        assert (run_folder / name).stat().st_size > 1000


def test_an_evaluation_counts_successes_and_is_the_same_every_time():
    settings = config(512)
    descriptor = ENVIRONMENT
    policy = descriptor.baselines["guidance"](descriptor.settings())
    evaluate = make_evaluation(settings, policy)
    first, again = evaluate(None), evaluate(None)
    assert first == again
    assert first.outcomes.episodes == 64
    assert first.outcomes.successes == round(64 * first.metrics["evaluation/success_rate"]) > 0
    assert first.outcomes.mean_reward == first.metrics["evaluation/episode_reward"]
    assert make_evaluation(settings, policy, lambda: True)(None) is None


def test_more_successes_are_better_than_any_reward_and_then_the_reward_decides():
    def cost(successes, reward):
        is_success = np.arange(4) < successes
        rewards = np.full(4, reward)
        return score_episodes(
            EpisodeResults(rewards, np.ones(4), np.zeros(4), is_success, {}, {})
        ).cost

    costs = [cost(2, -1000.0), cost(1, 1e6), cost(1, 900.0), cost(1, 0.0), cost(0, 1e9)]
    assert costs == sorted(costs)
    assert len(set(costs)) == len(costs)


def test_episodes_do_not_depend_on_how_many_are_driven_together():
    environment = make_compiled(config(512).environment)
    policy = ENVIRONMENT.baselines["guidance"](ENVIRONMENT.settings())
    drive = make_episodes(environment, policy, ENVIRONMENT.view)
    many, few = (drive(None, number, EVALUATION_INDEX) for number in (6, 2))
    np.testing.assert_array_equal(many.steps[:2], few.steps)
    np.testing.assert_allclose(many.reward[:2], few.reward, rtol=1e-3)
    height_m = many.view["height_m"]
    assert (np.isfinite(height_m).sum(axis=0) == many.steps).all()


def test_a_number_of_episodes_is_refused_where_there_is_no_choice():
    folder, _ = trained()
    with pytest.raises(UserError, match="--episodes 8: the race has no choice of episodes"):
        evaluate_run(folder, episodes=8)
