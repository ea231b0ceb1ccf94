"""Does PPO learn an Atari game on two cores, and how fast are the two back ends?

    python benchmarks/atari.py [--game Boxing] [--observe memory] [--seeds 3] [--env-steps 400000]
                               [--minutes 8]

Trains PPO for each seed. Then the newest policy plays 16 whole games, which no training has played,
and a player with random actions plays the same games. Actions are sampled as in training: this is
usual for PPO on Atari, whose most probable action alone may stand still. It was decided before the
first training, and so was what counts as learning: for every seed the 95 % interval of the trained
policy's mean score lies above that of the random player.

The policy observes the 128 bytes of the console's memory (`--observe memory`), from which a network
without convolutions can learn; `--observe screen` trains `--preset ppo-atari-small`. Boxing,
because a player at random met 45 to 64 rewards in each of four games, one for each hit of either
side. At random, Freeway gave none in 12 games, and Pong at most one point that is positive in each
of four. Games keep Gymnasium's settings for `ALE/…-v5`:
four frames for each action, which the console ignores with a probability of 1/4 in each frame.

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

import jax  # noqa: E402
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
from rlcar.types import Params, TimeStep  # noqa: E402

RESULTS = Path(__file__).parent / "results"
WORK = Path(__file__).parents[1] / "runs" / "atari-benchmark"
SCREEN_PRESET = "ppo-atari-small"
PRESETS = {"memory": "ppo", "screen": SCREEN_PRESET}
SETTINGS: dict[str, dict[str, Any]] = {
    "memory": {
        "environment.settings.obs_type": "ram",
        "training.cars": 16,
        "ppo.epochs": 4,
        "ppo.minibatch_size": 256,
        "ppo.learning_rate": 1e-3,
        "ppo.entropy_scale": 0.01,
        "ppo.hidden_units": 128,
    },
    "screen": {},
}
GAMES, STUDENT_T = 16, 2.131  # the 97.5 % quantile of Student's t with 15 degrees of freedom
ENVIRONMENTS, STEPS, BLOCKS = 16, 400, 5  # of a measurement of speed


def train_until(folder: Path, begin: list[str], deadline_s: float) -> bool:
    """Begins a training with some options or continues it; returns whether it is complete then."""
    if checkpoint.latest(folder / "checkpoints") is not None:
        if completion_of(folder).is_complete:
            return True
        options = ["--resume", str(folder)]
    else:
        options = list(begin)
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


def begin_options(options: argparse.Namespace, seed: int) -> list[str]:
    """Returns the options of `rlcar train` with which the training of a seed begins."""
    words = ["--preset", PRESETS[options.observe], "--env", f"ale_py:ALE/{options.game}-v5"]
    settings = {
        **SETTINGS[options.observe],
        "training.env_steps": options.env_steps,
        # Whole games take longer than the training between two looks; the score below is enough.
        "training.evaluate_every_env_steps": 10 * options.env_steps,
    }
    for name, value in settings.items():
        words += ["--set", f"{name}={value}"]
    return [*words, "--seed", str(seed)]


def scores(config: Config, params: Params | None) -> list[float]:
    """Returns the score of each game that a policy plays to its end with sampled actions.

    Without `params`, all actions are equally likely.
    """
    spec = spec_of(config)
    policy = make_agent(config, spec).policy

    def sample(params: Params, carry: Any, now: TimeStep, key: Any, explore: bool) -> Any:
        return policy.act(params, carry, now, key, True)

    def at_random(params: Params, carry: Any, now: TimeStep, key: Any, explore: bool) -> Any:
        choice = jax.random.randint(key, now.reward.shape, 0, spec.action_size)
        return carry, jax.nn.one_hot(choice, spec.action_size)

    sampling = policy._replace(act=at_random if params is None else sample)
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
    rows = [
        row
        for row in read_metrics(folder / "metrics.jsonl")
        if row.get("episode/reward") is not None
    ]
    result = {
        "seed": config.seed,
        "env_steps": save.env_steps,
        "trained": scores(config, checkpoint.load(save, untrained, part="policy")),
        "curve": [[row["env_steps"], row["episode/reward"]] for row in rows],
        "minutes": rows[-1]["run/train_seconds"] / 60.0,
        "begun": json.loads((folder / "run.json").read_text()),
    }
    replace_text(kept, json.dumps(result) + "\n")
    return result


def interval(values: list[float]) -> tuple[float, float]:
    """Returns the 95 % interval of a mean."""
    half = STUDENT_T * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def env_steps_per_s(game: str, backend: str) -> float:
    """Returns the env steps per second of a back end with random actions."""
    config = make_config(
        SCREEN_PRESET, environment=f"ALE/{game}-v5", overrides=[f"environment.backend={backend}"]
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
        SCREEN_PRESET, environment=f"ALE/{game}-v5", overrides=[f"environment.backend={backend}"]
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


def draw(path: Path, game: str, at_random: list[float], results: list[dict[str, Any]]) -> None:
    """Draws the rewards of training over env steps, and the scores of whole games."""
    figure = Figure(figsize=(9.0, 3.6), dpi=110, layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2, width_ratios=[2.0, 1.0])
    for one in results:
        steps, reward = zip(*one["curve"], strict=True)
        left.plot(steps, reward, linewidth=1.2, label=f"seed {one['seed']}")
        right.scatter(np.full(GAMES, 1 + one["seed"]), one["trained"], s=9, alpha=0.6)
    right.scatter(np.zeros(GAMES), at_random, s=9, alpha=0.6, color="#666666")
    names = ["random", *(f"seed {one['seed']}" for one in results)]
    left.set(xlabel="env steps", ylabel="reward of training, last 100 games", title=game)
    left.legend(frameon=False)
    right.set(xticks=range(len(names)), xticklabels=names, ylabel="score of a whole game")
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
    parser.add_argument("--observe", choices=list(PRESETS), default="memory")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--env-steps", type=int, default=400_000)
    parser.add_argument("--minutes", type=float, default=1e6)
    options = parser.parse_args()
    print_header("jax", "ale-py")
    load, deadline_s = os.getloadavg()[0], time.monotonic() + 60.0 * options.minutes
    prepare_jax()
    WORK.mkdir(parents=True, exist_ok=True)
    name = f"{options.game.lower()}-{options.observe}"
    folders = [WORK / f"{name}-{seed}" for seed in range(options.seeds)]
    for seed, folder in enumerate(folders):
        if not train_until(folder, begin_options(options, seed), deadline_s):
            print(f"{folder.name} is not complete: repeat the command, which continues it")
            return
    results = [result_of(folder) for folder in folders]
    at_random = scores(load_config(folders[0] / "config.json"), None)
    limit = interval(at_random)
    learned = []
    for one in results:
        one["interval"] = interval(one["trained"])
        learned.append(one["interval"][0] > limit[1])
    figures: dict[str, float] = {
        "random_score": float(np.mean(at_random)),
        "trained_score": float(np.mean([np.mean(one["trained"]) for one in results])),
        "seeds_that_learned": sum(learned),
    }
    figures["minutes"] = float(np.mean([one["minutes"] for one in results]))
    for backend in ("ale", "envpool"):
        if backend == "envpool" and importlib.util.find_spec("envpool") is None:
            continue
        figures[f"{backend}_env_steps_per_s"] = env_steps_per_s(options.game, backend)
        for name, value in loop_rates(options.game, backend).items():
            figures[f"{backend}_{name}"] = value
    report = {"figures": figures, "origin": origin(load), "game": options.game}
    report |= {"observe": options.observe, "random": at_random, "random_interval": limit}
    report["seeds"] = results
    replace_text(RESULTS / "atari.json", json.dumps(report, indent=1) + "\n")
    draw(RESULTS / "atari.png", options.game, at_random, results)
    for name, value in figures.items():
        print(f"figure {name}={value:.4g}")


if __name__ == "__main__":
    main()
