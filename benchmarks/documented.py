"""Does the `documented` preset learn: do its model losses fall tenfold, does it beat no training?

Compares the untrained and the trained networks on the same recorded driving (the run's replay) and
on the same unseen tracks. Losses during the training would not be comparable, because the driving
changes.
"""

import argparse
import tempfile
from pathlib import Path

import jax
from header import print_header

from rlcar.agents import make_agent
from rlcar.config import make_config
from rlcar.evaluation.laps import drive
from rlcar.replay import Replay
from rlcar.sim import SPEC
from rlcar.storage import checkpoint
from rlcar.training.loop import train
from rlcar.training.trainer import load_replay

LOSSES = ("model/reconstruction_loss", "model/dynamics_loss", "model/reward_loss", "model/loss")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--env-steps", type=int, default=65_536)
    options = parser.parse_args()
    overrides = [f"training.env_steps={options.env_steps}"]
    config = make_config("documented", overrides=overrides, seed=options.seed)
    agent = make_agent(config, SPEC)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        train(config, folder)
        save = checkpoint.latest(folder / "checkpoints")
        assert save is not None
        fresh = agent.learner.init(config.seed)
        trained = checkpoint.load(save, fresh, part="learner")
        replay = Replay(config.replay, SPEC, config.training.block_length, config.seed)
        replay.restore(*load_replay(save))
        best = checkpoint.latest(folder / "best")
        assert best is not None
        like = agent.learner.policy_params(fresh)
        best_policy = checkpoint.load(best, like, part="policy")

    untrained_laps = drive(agent.policy, agent.learner.policy_params(fresh), config.race, "test")
    trained_laps = drive(agent.policy, best_policy, config.race, "test")
    # One train step's metrics are those of the parameters before it; 64 windows of each.
    batches = jax.tree.map(lambda x: x[:1], replay.sample(1))
    before = agent.learner.update(agent.learner.init(config.seed), batches)[1]
    after = agent.learner.update(trained, batches)[1]
    print_header("jax")
    for loss in LOSSES:
        was, now = float(before[loss]), float(after[loss])
        print(f"{loss:28} untrained {was:9.5f}  trained {now:9.5f}  {was / now:7.1f} times lower")
        print(f"figure {loss.split('/')[1]}_ratio={was / now:.4g}")
    for name, laps in (("untrained", untrained_laps), ("trained", trained_laps)):
        print(f"figure {name}_lap_rate={(laps.lap_time_steps > 0).mean():.4g}")
        print(f"figure {name}_progress={laps.progress.mean():.4g}")
        print(f"figure {name}_reward={laps.reward.mean():.4g}")


if __name__ == "__main__":
    main()
