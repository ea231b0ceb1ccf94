"""Does off-policy evaluation rank policies as a simulation does, and say `unknown` where it must?

Records noisy drivers on narrow roads. Estimates hand-written drivers that such data supports,
policies that were learned from the same data, and policies that act as nobody in it did. The true
returns are simulated on the same distribution of tracks. Writes its part of
benchmarks/results/offline.json.

What is measured stays in runs/offline-benchmarks, so a repeated command goes on where it was
stopped, and a second data set can be measured later: --seeds 1, then --seeds 2.
"""

import argparse
import itertools
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from header import print_header
from offline_parts import WORK, keep, print_figures

from rlcar.agents import make_agent
from rlcar.config import make_config
from rlcar.config.race import RaceConfig, TrackConfig
from rlcar.datasets import Dataset, DatasetWriter, World
from rlcar.datasets.behaviour import Behaviour, Noise
from rlcar.datasets.description import describe
from rlcar.datasets.recording import RaceRecorder, cars_for, record
from rlcar.datasets.writer import new_folder
from rlcar.evaluation.drivers import CAREFUL, careful, longest_ray
from rlcar.evaluation.environment import spec_of
from rlcar.evaluation.off_policy.fitted_q import FittedQSettings
from rlcar.evaluation.off_policy.logged import discounted_returns, read_logged
from rlcar.evaluation.off_policy.policies import NamedPolicy
from rlcar.evaluation.off_policy.ranking import rank_correlation, regret_at
from rlcar.evaluation.off_policy.run import estimate, print_report
from rlcar.evaluation.off_policy.verdict import interval_of_members, verdict_of
from rlcar.evaluation.run_report import load_policy
from rlcar.offline.data_settings import settings_of_data
from rlcar.sim import SPEC
from rlcar.storage import checkpoint
from rlcar.system.durable import replace_text
from rlcar.track import TRACK_SETS
from rlcar.training.loop import train
from rlcar.types import Policy

RACE = RaceConfig(track=TrackConfig(half_width_px=20.0))
SEEDS = tuple(TRACK_SETS["train"])[:1024]
NOISE = Noise(0.1, 0.4)
# Name -> algorithm and env steps; 64 train steps with 256 transitions each for 8,192 env steps.
LEARNED = {
    "bc": ("bc", 131_072),
    "cql": ("cql", 262_144),
    "cql early": ("cql", 32_768),
    "iql": ("iql", 262_144),
    "iql early": ("iql", 32_768),
}
TRUE_SEED = 12_345
SPEEDS = (0.15, 0.3, 0.45, 0.6, 0.8)  # with a wall directly ahead, as a share of the top speed


def rule(speed: float, caution: float = CAREFUL.caution) -> NamedPolicy:
    """Returns a driver that steers by its rays."""
    params = CAREFUL._replace(base=speed, caution=caution)
    return NamedPolicy(f"speed {speed:g}, caution {caution:g}", careful, params)


def supported() -> list[NamedPolicy]:
    """Returns the drivers of the data without their noise, and drivers between them."""
    recorded = [rule(speed) for speed in SPEEDS]
    between = [rule(0.2), rule(0.35, 0.5), rule(0.5, 0.35), rule(0.7, 0.5)]
    return [*recorded, NamedPolicy("longest_ray", longest_ray, None), *between]


def unsupported() -> list[NamedPolicy]:
    """Returns policies that act as nobody in the data did."""
    changes: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
        "always left": ((0.0, 1.0), (0.0, 1.0)),
        "always right": ((0.0, -1.0), (0.0, 1.0)),
        "never moves": ((1.0, 0.0), (0.0, -1.0)),
        "mirrored": ((-1.0, 0.0), (1.0, 0.0)),
        "mirrored, full throttle": ((-1.0, 0.0), (0.0, 1.0)),
        "pulls to the left": ((1.0, 0.9), (1.0, 0.0)),
        "pulls to the right": ((1.0, -0.9), (1.0, 0.0)),
        "inverted throttle": ((1.0, 0.0), (-1.0, 0.0)),
    }
    policies = [NamedPolicy(name, changed(*change), None) for name, change in changes.items()]
    return [*policies, *(NamedPolicy(f"random network {i}", network(i), None) for i in range(2))]


def changed(steering: tuple[float, float], throttle: tuple[float, float]) -> Policy:
    """Returns a driver whose actions are multiplied and shifted."""
    factor = jnp.array([steering[0], throttle[0]])
    shift = jnp.array([steering[1], throttle[1]])

    def act(params: Any, carry: Any, time_step: Any, key: Any, explore: bool) -> tuple[Any, Any]:
        carry, action = careful.act(None, carry, time_step, key, explore)
        return carry, jnp.clip(action * factor + shift, -1.0, 1.0)

    return Policy(careful.initial, act)


def network(seed: int) -> Policy:
    """Returns an untrained network."""
    first, second = jax.random.split(jax.random.key(seed))
    hidden = 3.0 * jax.random.normal(first, (SPEC.observation_size, 32))
    output = jax.random.normal(second, (32, SPEC.action_size))

    def act(params: Any, carry: Any, time_step: Any, key: Any, explore: bool) -> tuple[Any, Any]:
        return carry, jnp.tanh(jnp.tanh((time_step.observation - 0.5) @ hidden) @ output)

    return Policy(lambda number: None, act)


def write(folder: Path, behaviours: list[Behaviour], transitions: int, seed: int) -> Dataset:
    """Records behaviours, with equal shares, unless that is done."""
    if folder.exists():
        return Dataset.open(folder)
    description = describe(World(race=RACE), SPEC)
    with new_folder(folder) as temporary, DatasetWriter(temporary, description) as writer:
        record(
            writer,
            behaviours,
            lambda behaviour, cars, lane: RaceRecorder(RACE, SEEDS, behaviour, cars, lane),
            transitions=transitions,
            cars=cars_for(transitions, None, True),
            seed=seed,
        )
    return Dataset.open(folder)


def learned(data: Dataset, folder: Path, seed: int) -> list[NamedPolicy]:
    """Trains policies on a data set, unless that is done; returns their last checkpoints."""
    _, of_data = settings_of_data(data.folder, None, None)
    policies = []
    for name, (algorithm, env_steps) in LEARNED.items():
        run = folder / name.replace(" ", "-")
        run.mkdir(parents=True, exist_ok=True)
        steps = f"training.env_steps={env_steps}", "training.evaluate_every_env_steps=1000000"
        config = make_config(algorithm=algorithm, seed=seed, overrides=[*of_data, *steps])
        save = checkpoint.latest(run / "checkpoints")
        if save is None or save.env_steps < env_steps:
            if train(config, run, save).interrupted:
                sys.exit(130)
            save = checkpoint.latest(run / "checkpoints")
        agent = make_agent(config, spec_of(config))
        assert save is not None
        _, params = load_policy(run, save.path, agent, seed)
        policies.append(NamedPolicy(name, agent.policy, params))
    return policies


def true_return(policy: NamedPolicy, folder: Path, transitions: int, discount: float) -> float:
    """Simulates a policy without noise, unless that is done."""
    behaviour = Behaviour(policy.name, policy.policy, policy.params)
    data = write(folder, [behaviour], transitions, TRUE_SEED)
    logged = read_logged(data, 10**9)
    return float(discounted_returns(logged, discount)[logged.starts].mean())


def true_returns(
    policies: Sequence[NamedPolicy], folder: Path, transitions: int, discount: float
) -> dict[str, float]:
    """Returns the true return of each policy by its name."""
    return {
        policy.name: true_return(
            policy, folder / policy.name.replace(" ", "-"), transitions, discount
        )
        for policy in policies
    }


def measure(options: argparse.Namespace, seed: int, root: Path) -> dict[str, Any]:
    """Records a data set, learns from it, and estimates and simulates all policies."""
    settings = FittedQSettings(updates=options.updates)
    drivers = [*(rule(speed) for speed in SPEEDS), NamedPolicy("ray", longest_ray, None)]
    behaviours = [Behaviour(each.name, each.policy, each.params, NOISE) for each in drivers]
    own = root / f"data-{seed}"
    data = write(own / "recorded", behaviours, options.transitions, seed)
    of_data = learned(data, own / "runs", seed)
    kinds = {"rule": supported(), "learned": of_data, "unsupported": unsupported()}
    true = true_returns(supported(), root / "true", options.transitions, settings.discount)
    true |= true_returns(of_data, own / "true", options.transitions, settings.discount)
    report = estimate(data, [each for kind in kinds.values() for each in kind], settings, seed=seed)
    print_report(report)
    kind_of = {each.name: kind for kind, policies in kinds.items() for each in policies}
    shown = "verdict", "reason", "estimate", "members", "difference", "outside_support", "checks"
    cases = [
        {"seed": seed, "policy": name, "kind": kind_of[name], "true": true.get(name)}
        | {key: result[key] for key in shown}
        for name, result in report["policies"].items()
    ]
    return {"behaviour": report["behaviour"], "cases": cases}


def figures_of(results: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns the figures of all data sets; ranks are compared within each of them."""
    correlations, regrets, numbers, unknown = [], [], [], []
    estimated, wrong, pairs = [], 0, []
    for result in results:
        cases = result["cases"]
        known = [each for each in cases if each["estimate"] and each["true"] is not None]
        pair = (
            np.array([each["estimate"]["mean"] for each in known]),
            np.array([each["true"] for each in known]),
        )
        correlations.append(rank_correlation(*pair))
        regrets.append(regret_at(1, *pair))
        numbers.append(len(known))
        outside = [each for each in cases if each["kind"] == "unsupported"]
        unknown.append(
            sum(each["verdict"] == "unknown" and not each["estimate"] for each in outside)
        )
        estimated += known
        recorded = result["behaviour"]["return"]
        wrong += sum(is_wrong(each["verdict"], each["true"] - recorded) for each in known)
        pairs += list(itertools.combinations(known, 2))
    verdicts = [compare(*pair) for pair in pairs]
    return {
        "ope_rank_correlation": float(np.min(correlations)),
        "ope_ranked_policies": int(np.min(numbers)),
        "ope_unknown_of_10": int(np.min(unknown)),
        "ope_coverage": coverage(estimated),
        "ope_coverage_learned": coverage([e for e in estimated if e["kind"] == "learned"]),
        "ope_estimates": len(estimated),
        "ope_estimates_learned": sum(each["kind"] == "learned" for each in estimated),
        "ope_learned": sum(e["kind"] == "learned" for r in results for e in r["cases"]),
        "ope_regret_at_1": float(np.max(regrets)),
        "ope_wrong_verdicts": wrong,
        "ope_pairs": len(pairs),
        "ope_pairs_decided": sum(verdict != "unknown" for verdict, _ in verdicts),
        "ope_pairs_wrong": sum(is_wrong(*verdict) for verdict in verdicts),
    }


def coverage(cases: Sequence[Mapping[str, Any]]) -> float:
    """Returns the share of intervals that contain the true return."""
    inside = [case["estimate"]["low"] <= case["true"] <= case["estimate"]["high"] for case in cases]
    return float(np.mean(inside)) if inside else 0.0


def compare(policy: Mapping[str, Any], baseline: Mapping[str, Any]) -> tuple[str, float]:
    """Returns the verdict about a policy relative to another one, and their true difference."""
    members = np.array(policy["members"]) - np.array(baseline["members"])
    verdict, _ = verdict_of(interval_of_members(members), [])
    return verdict, policy["true"] - baseline["true"]


def is_wrong(verdict: str, true_difference: float) -> bool:
    """Returns whether a verdict contradicts the true difference."""
    return (verdict == "better" and true_difference < 0.0) or (
        verdict == "worse" and true_difference > 0.0
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transitions", type=int, default=60_000)
    parser.add_argument("--updates", type=int, default=FittedQSettings().updates)
    parser.add_argument("--seeds", type=int, default=2, help="number of data sets")
    parser.add_argument("--first-seed", type=int, default=10)
    parser.add_argument("--no-keep", action="store_true", help="leaves the result file as it is")
    options = parser.parse_args()
    print_header("jax", "numpy")
    load = os.getloadavg()[0]
    root = WORK / f"evaluation-{options.transitions}"
    results = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        path = root / f"result-{seed}-{options.updates}.json"
        if not path.exists():
            start_s = time.process_time()
            result = measure(options, seed, root)
            result["cpu_seconds"] = time.process_time() - start_s
            replace_text(path, json.dumps(result))
        results.append(json.loads(path.read_text()))
    figures = figures_of(results)
    if options.no_keep:
        print_figures(figures)
        return
    details = {
        "settings": {
            "transitions": options.transitions,
            "updates": options.updates,
            "seeds": [options.first_seed + index for index in range(options.seeds)],
        },
        "cpu_seconds": [result["cpu_seconds"] for result in results],
        "cases": [case for result in results for case in result["cases"]],
    }
    keep("evaluation", figures, load, details)


if __name__ == "__main__":
    main()
