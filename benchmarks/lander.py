"""Which algorithms learn to land, how well, and in how many minutes, beside guidance and chance?

    python benchmarks/lander.py [--algorithms ppo sac] [--seeds 3] [--runs runs/lander-benchmark]

Trains the curriculum `lander` with each seed, and with algorithms other than PPO its first stage
alone, until it is passed. Then 1,000 unseen episodes of the last stage that was reached are flown
with the newest policy, the hand-written guidance law and random actions. A
training that was interrupted goes on, and one that has ended is only evaluated. Rows of other
algorithms and seeds stay in the results, with their origin. The minutes count
from the first event of the curriculum's journal to the last, so they include every evaluation. The
CPU minutes are those of the process, and unknown for a training that another process began.
Writes benchmarks/results/lander.json and lander.png. The twin's error and the rate of the
simulator are those of `lander_physics.py`.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from header import origin, print_header  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from rlcar.agents import make_agent  # noqa: E402
from rlcar.config import load_config  # noqa: E402
from rlcar.devices.compile_cache import prepare_jax  # noqa: E402
from rlcar.evaluation.environment import spec_of  # noqa: E402
from rlcar.evaluation.episode_report import report_episodes  # noqa: E402
from rlcar.evaluation.json_file import write_json  # noqa: E402
from rlcar.runs.metrics_file import read_metrics  # noqa: E402
from rlcar.storage import checkpoint  # noqa: E402
from rlcar.training.curriculum.checks import check_curriculum  # noqa: E402
from rlcar.training.curriculum.record import (  # noqa: E402
    STATE_FILE,
    Record,
    begin_record,
    open_record,
)
from rlcar.training.curriculum.report import attempts_of  # noqa: E402
from rlcar.training.curriculum.runner import CurriculumRun  # noqa: E402
from rlcar.training.curriculum.settings import Curriculum, load_curriculum  # noqa: E402
from rlcar.training.loop import train  # noqa: E402

RESULTS = Path(__file__).parent / "results"
PHYSICS = RESULTS / "lander_physics.json"
EPISODES = 1_000
_FIGURES = (
    "success",
    "mean_reward",
    "precision_m",
    "fuel_left",
    "soft_share",
    "minutes",
    "cpu_minutes",
)
_BEST = "ppo"  # alone fast enough for the whole curriculum
_LONGEST_ENV_STEPS = 400_000  # of the first stage with the others


def curriculum_of(algorithm: str, seed: int, env_steps: int | None) -> Curriculum:
    """Returns the lander's curriculum for an algorithm; `env_steps` limits each attempt.

    The first stage alone, which ends as soon as it is passed, for all algorithms but the best.
    """
    overrides = [] if env_steps is None else [f"training.env_steps={env_steps}"]
    curriculum = load_curriculum("lander", overrides, seed)
    if algorithm == _BEST:
        return curriculum
    base = curriculum.base.model_copy(update={"preset": None, "algorithm": algorithm})
    alone = {"min_episodes": 0, "attempts": 1, "after_last_attempt": "stop"}
    first = curriculum.stages[0].model_copy(update=alone | {"max_env_steps": _LONGEST_ENV_STEPS})
    return curriculum.model_copy(update={"base": base, "stages": [first]})


def train_one(folder: Path, curriculum: Curriculum) -> tuple[Record, float | None]:
    """Trains to the end of the curriculum, or goes on with it; raises KeyboardInterrupt.

    Also returns the CPU minutes, or None if another process has begun the training.
    """
    began_s, is_new = time.process_time(), not (folder / STATE_FILE).exists()
    if not is_new:
        record = open_record(folder, curriculum)
    else:
        check_curriculum(curriculum)
        folder.mkdir(parents=True, exist_ok=True)
        record = begin_record(folder, curriculum)
    if not CurriculumRun(record, lambda *given: train(*given)).run():
        raise KeyboardInterrupt
    return record, (time.process_time() - began_s) / 60.0 if is_new else None


def measure(
    algorithm: str, seed: int, record: Record, cpu_minutes: float | None, load: float
) -> dict[str, Any]:
    """Returns the figures of one training, and those of the baselines in the same episodes."""
    attempts = attempts_of(record)
    newest = attempts[-1]
    config = load_config(newest.folder / "config.json")
    agent = make_agent(config, spec_of(config))
    save = checkpoint.latest(newest.folder / "checkpoints")
    assert save is not None
    like = agent.learner.policy_params(agent.learner.init(0))
    params = checkpoint.load(save, like, part="policy")
    report, _ = report_episodes(config, agent, params, EPISODES)
    policies = {
        "learned" if name == config.preset else name: scores
        for name, scores in report["policies"].items()
    }
    times_s = [entry.time_s for entry in record.entries]
    learned = policies["learned"]
    return {
        "algorithm": algorithm,
        "seed": seed,
        "origin": origin(load),
        "phase": str(record.state.phase),
        "stage": record.curriculum.stages[newest.run[0]].name,
        "success": learned["success_rate"],
        "mean_reward": learned["episode_reward"],
        "precision_m": learned["distance_m"],
        "fuel_left": learned["fuel_fraction"],
        "soft_share": learned["is_soft"],
        "minutes": (times_s[-1] - times_s[0]) / 60.0,
        "cpu_minutes": cpu_minutes,
        "env_steps": sum(attempt.env_steps for attempt in attempts),
        "attempts": len(attempts),
        "regressions": record.state.regressions,
        "policies": policies,
        "curve": [
            [attempt.env_steps_before + row["env_steps"], row["evaluation/success_rate"]]
            for attempt in attempts
            for row in read_metrics(attempt.folder / "metrics.jsonl")
            if row.get("evaluation/success_rate") is not None
        ],
        "stages": [
            {
                "name": record.curriculum.stages[attempt.run[0]].name,
                "env_steps": attempt.env_steps,
                "train_minutes": attempt.train_seconds / 60.0,
                "passed": attempt.passed,
            }
            for attempt in attempts
        ],
        "passed_at_env_steps": [
            attempt.env_steps_before + attempt.env_steps for attempt in attempts if attempt.passed
        ],
    }


def print_policies(result: dict[str, Any]) -> None:
    """Prints random, guidance and the learned policy under one another."""
    print(f"{result['algorithm']}, seed {result['seed']}, stage {result['stage']}:")
    row = "  {:10} {:>9} {:>9} {:>11} {:>10} {:>6}"
    print(row.format("policy", "success", "reward", "precision_m", "fuel_left", "soft"))
    names = ("success_rate", "episode_reward", "distance_m", "fuel_fraction", "is_soft")
    for policy in ("random", "guidance", "learned"):
        scores = result["policies"][policy]
        cells = ["-" if scores[name] is None else f"{scores[name]:.4g}" for name in names]
        print(row.format(policy, *cells), flush=True)


def draw(path: Path, results: list[dict[str, Any]]) -> None:
    """Draws the success of each training over env steps; dots mark the stages that it passed."""
    figure = Figure(figsize=(9, 4), dpi=150, layout="constrained")
    axes = figure.subplots()
    for result in results:
        if not result["curve"]:
            continue
        label = f"{result['algorithm']}, seed {result['seed']}"
        (line,) = axes.plot(*zip(*result["curve"], strict=True), linewidth=1, label=label)
        passed = result["passed_at_env_steps"]
        axes.plot(passed, [1.02] * len(passed), ".", color=line.get_color())
    axes.set(
        xlabel="env steps", ylabel="success in the present stage", ylim=(-0.03, 1.06), xscale="log"
    )
    axes.set_title("the lander's curriculum: each evaluation, and a dot where a stage was passed")
    axes.legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    """Trains all algorithms and seeds, prints the figures and writes them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--algorithms", nargs="+", default=[_BEST])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--max-env-steps", type=int, help="limit of each attempt")
    parser.add_argument("--runs", type=Path, default=Path("runs/lander-benchmark"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    prepare_jax()
    print_header("jax")
    physics = json.loads(PHYSICS.read_text())
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "lander.json"
    results = json.loads(path.read_text())["runs"] if path.exists() else []
    for algorithm in options.algorithms:
        for seed in range(options.seeds):
            curriculum = curriculum_of(algorithm, seed, options.max_env_steps)
            record, cpu_minutes = train_one(options.runs / f"{algorithm}-{seed}", curriculum)
            result = measure(algorithm, seed, record, cpu_minutes, load)
            print_policies(result)
            results = [r for r in results if (r["algorithm"], r["seed"]) != (algorithm, seed)]
            results = sorted([*results, result], key=lambda r: (r["algorithm"], r["seed"]))
            tree = {
                "twin_error_m_s": physics["twin_error_m_s"],
                "env_steps_per_s": physics["env_steps_per_s"],
                "episodes": EPISODES,
                "runs": results,
            }
            write_json(path, tree)
            draw(options.out / "lander.png", results)
    for algorithm in options.algorithms:
        own = [result for result in results if result["algorithm"] == algorithm]
        for name in _FIGURES:
            values = [one[name] for one in own if one[name] is not None]
            if values:
                print(f"figure {algorithm}_{name}={sum(values) / len(values):.4g}")


if __name__ == "__main__":
    main()
