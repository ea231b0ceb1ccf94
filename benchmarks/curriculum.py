"""Does a curriculum reach the grand prix sooner than training in it from the beginning?

    python benchmarks/curriculum.py [--seeds 3] [--preset fused-ppo] [--max-env-steps N]

Trains the curriculum `grand-prix` to its end, and then a single run in its last stage alone with as
many env steps. Both policies drive the same 200 tracks of the last stage, which no training has
seen; intervals are Wilson's, 95 %. Writes benchmarks/results/curriculum.json and curriculum.png.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from header import origin, print_header  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from rlcar.agents import make_agent  # noqa: E402
from rlcar.config import Config  # noqa: E402
from rlcar.devices.compile_cache import prepare_jax  # noqa: E402
from rlcar.evaluation.environment import make_fresh_evaluation, spec_of  # noqa: E402
from rlcar.evaluation.statistics import wilson_interval  # noqa: E402
from rlcar.runs.metrics_file import read_metrics  # noqa: E402
from rlcar.storage import checkpoint  # noqa: E402
from rlcar.training.curriculum.checks import check_curriculum  # noqa: E402
from rlcar.training.curriculum.record import begin_record  # noqa: E402
from rlcar.training.curriculum.report import attempts_of  # noqa: E402
from rlcar.training.curriculum.runner import CurriculumRun  # noqa: E402
from rlcar.training.curriculum.settings import Curriculum, load_curriculum  # noqa: E402
from rlcar.training.curriculum.thresholds import fresh_seeds  # noqa: E402
from rlcar.training.loop import train  # noqa: E402

RESULTS = Path(__file__).parent / "results"
_COMPARING = 2  # purpose of fresh episodes, beside those of the runner
_Points = list[tuple[float, float]]  # env steps, success


def score(curriculum: Curriculum, config: Config, folder: Path) -> dict[str, Any]:
    """Drives fresh tracks of the last stage with the newest policy of a run.

    `config` are the settings of the last stage, also for a run of another one.
    """
    agent = make_agent(config, spec_of(config))
    save = checkpoint.latest(folder / "checkpoints")
    assert save is not None
    like = agent.learner.policy_params(agent.learner.init(0))
    params = checkpoint.load(save, like, part="policy")
    seeds = fresh_seeds(curriculum, _COMPARING)
    evaluation = make_fresh_evaluation(config, agent.policy, seeds)(params)
    assert evaluation is not None
    assert evaluation.outcomes is not None
    outcomes = evaluation.outcomes
    low, high = wilson_interval(outcomes.successes or 0, outcomes.episodes, 1.96)
    return {
        "success": (outcomes.successes or 0) / outcomes.episodes,
        "success_low": low,
        "success_high": high,
        "mean_reward": outcomes.mean_reward,
    }


def success_of(folder: Path, before: int) -> _Points:
    """Returns the evaluations of a run, over env steps that count on from `before`."""
    rows = read_metrics(folder / "metrics.jsonl")
    name = "evaluation/success_rate"
    return [(before + row["env_steps"], row[name]) for row in rows if row.get(name) is not None]


def compare(seed: int, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Trains one seed with and without the curriculum."""
    limit = options.max_env_steps
    overrides = [] if limit is None else [f"training.env_steps={limit}"]
    curriculum = load_curriculum("grand-prix", overrides, seed)
    base = curriculum.base.model_copy(update={"preset": options.preset})
    curriculum = curriculum.model_copy(update={"base": base})
    check_curriculum(curriculum)
    last = len(curriculum.stages) - 1
    place = folder / f"with{seed}"
    place.mkdir(parents=True)
    began_s = time.monotonic()
    run = CurriculumRun(begin_record(place, curriculum), lambda *given: train(*given))
    if not run.run():
        raise KeyboardInterrupt
    with_s = time.monotonic() - began_s
    attempts = attempts_of(run.record)
    env_steps = sum(attempt.env_steps for attempt in attempts)
    config = curriculum.config(last, 1)
    alone = config.training.model_copy(update={"env_steps": env_steps})
    began_s = time.monotonic()
    without = folder / f"without{seed}"
    if train(config.model_copy(update={"training": alone}), without).interrupted:
        raise KeyboardInterrupt
    newest = attempts[-1].folder
    return {
        "seed": seed,
        "phase": run.record.state.phase,
        "env_steps": env_steps,
        "attempts": len(attempts),
        "regressions": run.record.state.regressions,
        "with": score(curriculum, config, newest),
        "without": score(curriculum, config, without),
        "minutes_with": with_s / 60,
        "minutes_without": (time.monotonic() - began_s) / 60,
        "curve_with": [success_of(one.folder, one.env_steps_before) for one in attempts],
        "curve_without": success_of(without, 0),
    }


def draw(path: Path, results: list[dict[str, Any]]) -> None:
    """Draws the success of all seeds over env steps."""
    figure = Figure(figsize=(9, 4), dpi=150, layout="constrained")
    axes = figure.subplots()
    for result in results:
        for points in result["curve_with"]:
            axes.plot(*zip(*points, strict=True), color="#2563a8", linewidth=1) if points else None
        if result["curve_without"]:
            axes.plot(*zip(*result["curve_without"], strict=True), color="#d1242f", linewidth=1)
    axes.set(xlabel="env steps", ylabel="success", ylim=(-0.03, 1.03))
    axes.set_title("blue: with the curriculum, each stage in its own world; red: last stage alone")
    figure.savefig(path)


def main() -> None:
    """Trains all seeds, prints the figures and writes them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--preset", default="fused-ppo")
    parser.add_argument("--max-env-steps", type=int, help="limit of each attempt")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    prepare_jax()
    print_header("jax")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            results.append(compare(seed, options, Path(folder)))
            one = results[-1]
            print(
                f"seed {seed}: {one['phase']} after {one['env_steps']:,} env steps; success with "
                f"the curriculum {one['with']['success']:.3f}, without "
                f"{one['without']['success']:.3f}",
                flush=True,
            )
    options.out.mkdir(parents=True, exist_ok=True)
    tree = {"runs": results, "origin": origin(load)}
    (options.out / "curriculum.json").write_text(json.dumps(tree, indent=1) + "\n")
    draw(options.out / "curriculum.png", results)
    for name in ("with", "without"):
        mean = sum(one[name]["success"] for one in results) / len(results)
        print(f"figure success_{name}_curriculum={mean:.4f}")
    print(f"figure env_steps={sum(one['env_steps'] for one in results) / len(results):.0f}")


if __name__ == "__main__":
    main()
