"""Does PPO learn an Atari game on two cores, and how fast are the two back ends?

    python benchmarks/atari.py [--game Boxing] [--seeds 3] [--env-steps 600000] [--minutes 8]

Trains `--preset ppo-atari-small` from the screen for each seed. Then the newest policy and the
untrained one with the same seed play the same 16 whole games each, which no training has played.
Actions are sampled as in training: this is usual for PPO on Atari, whose most probable action alone
may stand still. It was decided before the first training, and so was what counts as learning: for
every seed the 95 % interval of the trained policy's mean score lies above that of the untrained
one. Boxing, because it pays a point for each hit, so that a player at random meets rewards; Pong
and Breakout need more env steps than an hour on two cores has.

Runs are kept in runs/atari-benchmark. With `--minutes` the command ends after about that time, and
the same command continues it. Writes benchmarks/results/atari.json and atari.png in the end.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np  # noqa: E402
from header import origin, print_header  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from processes import program  # noqa: E402

from rlcar.agents import make_agent  # noqa: E402
from rlcar.config import Config, load_config, make_config  # noqa: E402
from rlcar.devices.compile_cache import prepare_jax  # noqa: E402
from rlcar.envs.vector import make_vector  # noqa: E402
from rlcar.evaluation.environment import FIRST_FRESH_SEED, make_rollout, spec_of  # noqa: E402
from rlcar.evaluation.environment.gymnasium import make_episodes  # noqa: E402
from rlcar.evaluation.pictures import save_figure  # noqa: E402
from rlcar.runs.completion import completion_of  # noqa: E402
from rlcar.runs.metrics_file import read_metrics  # noqa: E402
from rlcar.storage import checkpoint  # noqa: E402
from rlcar.system.durable import replace_text  # noqa: E402
from rlcar.training.trainer import Trainer  # noqa: E402
from rlcar.types import Params  # noqa: E402

RESULTS = Path(__file__).parent / "results"
WORK = Path(__file__).parents[1] / "runs" / "atari-benchmark"
PRESET, GAMES, Z = "ppo-atari-small", 16, 1.96
ENVIRONMENTS, STEPS, BLOCKS = 16, 400, 5  # of a measurement of speed


def train_until(folder: Path, game: str, seed: int, env_steps: int, deadline_s: float) -> bool:
    """Begins or continues a training; returns whether it is complete at the deadline."""
    if checkpoint.latest(folder / "checkpoints") is not None:
        if completion_of(folder).is_complete:
            return True
        options = ["--resume", str(folder)]
    else:
        options = ["--preset", PRESET, "--env", f"ALE/{game}-v5", "--seed", str(seed)]
        options += ["--set", f"training.env_steps={env_steps}"]
        # Whole games take longer than the training between two looks; the score below is enough.
        options += ["--set", f"training.evaluate_every_env_steps={10 * env_steps}"]
        options += ["--runs", str(folder.parent), "--name", folder.name]
    if time.monotonic() >= deadline_s:
        return False
    command = [sys.executable, "-m", "rlcar.cli", "train", "--local", *options]
    with (
        (folder.parent / f"{folder.name}.log").open("a") as log,
        program(command, stop=signal.SIGINT, stdout=log, stderr=log) as run,
        contextlib.suppress(subprocess.TimeoutExpired),
    ):
        run.wait(max(1.0, deadline_s - time.monotonic()))
    return completion_of(folder).is_complete


def scores(config: Config, params: Params) -> list[float]:
    """Returns the score of each game that a policy plays to its end with sampled actions."""
    policy = make_agent(config, spec_of(config)).policy
    sampling = policy._replace(
        act=lambda params, carry, now, key, explore: policy.act(params, carry, now, key, True)
    )
    seeds = range(FIRST_FRESH_SEED, FIRST_FRESH_SEED + GAMES)
    episodes = make_episodes(config, sampling)(params, seeds)
    assert episodes is not None
    return [float(reward) for reward in episodes.reward]


def result_of(folder: Path) -> dict[str, Any]:
    """Returns the scores and the curve of a complete training; they are kept in its folder."""
    kept = folder / "score.json"
    if kept.exists():
        return json.loads(kept.read_text())
    config = load_config(folder / "config.json")
    learner = make_agent(config, spec_of(config)).learner
    untrained = learner.policy_params(learner.init(config.seed))
    save = checkpoint.latest_sound(folder / "checkpoints")
    assert save is not None
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if row.get("episode/reward")]
    result = {
        "seed": config.seed,
        "env_steps": save.env_steps,
        "trained": scores(config, checkpoint.load(save, untrained, part="policy")),
        "untrained": scores(config, untrained),
        "curve": [[row["env_steps"], row["episode/reward"]] for row in rows],
        "minutes": rows[-1]["run/train_seconds"] / 60.0,
        "begun": json.loads((folder / "run.json").read_text()),
    }
    replace_text(kept, json.dumps(result) + "\n")
    return result


def interval(values: list[float]) -> tuple[float, float]:
    """Returns the 95 % interval of a mean."""
    half = Z * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def env_steps_per_s(game: str, backend: str) -> float:
    """Returns the env steps per second of a back end with random actions."""
    config = make_config(
        PRESET, environment=f"ALE/{game}-v5", overrides=[f"environment.backend={backend}"]
    )
    with contextlib.closing(make_vector(config.driven_environment, range(ENVIRONMENTS))) as games:
        number = games.spec.action_size
        choices = np.random.default_rng(0).integers(number, size=(STEPS, ENVIRONMENTS))
        actions = np.eye(number, dtype=np.float32)[choices]
        start_s = time.perf_counter()
        for action in actions:
            games.step(action)
        return STEPS * ENVIRONMENTS / (time.perf_counter() - start_s)


def loop_rates(game: str, backend: str) -> dict[str, float]:
    """Returns what driving and learning in turn reach: env steps, and samples of learning alone."""
    config = make_config(
        PRESET, environment=f"ALE/{game}-v5", overrides=[f"environment.backend={backend}"]
    )
    spec = spec_of(config)
    agent = make_agent(config, spec)
    trainer = Trainer(config, spec, agent)
    with contextlib.closing(make_rollout(config, agent.policy)) as rollout:
        driving_s, learning_s = [], []
        for _ in range(1 + BLOCKS):  # the first compiles
            start_s = time.perf_counter()
            trajectory, _ = rollout.collect(trainer.weights())
            driven_s = time.perf_counter()
            trainer.insert(trajectory)
            trainer.train()
            driving_s.append(driven_s - start_s)
            learning_s.append(time.perf_counter() - driven_s)
    env_steps = trajectory.reward.size
    samples = config.ppo.epochs * env_steps
    return {
        "trained_env_steps_per_s": BLOCKS * env_steps / sum(driving_s[1:] + learning_s[1:]),
        "train_samples_per_s": BLOCKS * samples / sum(learning_s[1:]),
    }


def draw(path: Path, game: str, results: list[dict[str, Any]]) -> None:
    """Draws the rewards of training over env steps, and the scores before and after."""
    figure = Figure(figsize=(9.0, 3.6), dpi=110, layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2, width_ratios=[2.0, 1.0])
    for one in results:
        steps, reward = zip(*one["curve"], strict=True)
        left.plot(steps, reward, linewidth=1.2, label=f"seed {one['seed']}")
        for place, kind in enumerate(("untrained", "trained")):
            x = np.full(GAMES, place) + 0.15 * (one["seed"] - 1)
            right.scatter(x, one[kind], s=9, alpha=0.6)
    left.set(xlabel="env steps", ylabel="reward of training, last 100 games", title=game)
    left.legend(frameon=False)
    right.set(xticks=[0, 1], xticklabels=["untrained", "trained"], ylabel="score of a whole game")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#eceff2")
    save_figure(figure, path)


def main() -> None:
    """Trains, and, once all trainings are complete, scores, measures and writes the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--game", default="Boxing")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--env-steps", type=int, default=600_000)
    parser.add_argument("--minutes", type=float, default=1e6)
    options = parser.parse_args()
    print_header("jax", "ale-py")
    load, deadline_s = os.getloadavg()[0], time.monotonic() + 60.0 * options.minutes
    prepare_jax()
    WORK.mkdir(parents=True, exist_ok=True)
    folders = [WORK / f"{options.game.lower()}-{seed}" for seed in range(options.seeds)]
    for seed, folder in enumerate(folders):
        if not train_until(folder, options.game, seed, options.env_steps, deadline_s):
            print(f"{folder.name} is not complete: repeat the command, which continues it")
            return
    results = [result_of(folder) for folder in folders]
    figures: dict[str, float] = {}
    for kind in ("untrained", "trained"):
        figures[f"{kind}_score"] = float(np.mean([np.mean(one[kind]) for one in results]))
    learned = [interval(one["trained"])[0] > interval(one["untrained"])[1] for one in results]
    figures["seeds_that_learned"] = sum(learned)
    figures["minutes"] = float(np.mean([one["minutes"] for one in results]))
    for backend in ("ale", "envpool"):
        if backend == "envpool" and importlib.util.find_spec("envpool") is None:
            continue
        figures[f"{backend}_env_steps_per_s"] = env_steps_per_s(options.game, backend)
        for name, value in loop_rates(options.game, backend).items():
            figures[f"{backend}_{name}"] = value
    report = {"figures": figures, "origin": origin(load), "game": options.game, "seeds": results}
    replace_text(RESULTS / "atari.json", json.dumps(report, indent=1) + "\n")
    draw(RESULTS / "atari.png", options.game, results)
    for name, value in figures.items():
        print(f"figure {name}={value:.4g}")


if __name__ == "__main__":
    main()
