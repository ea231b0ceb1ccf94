"""Does off-policy evaluation rank policies as a simulation does, and say `unknown` where it must?

Records noisy drivers on narrow roads. Estimates policies that such data supports, and policies that
act as nobody in it did. The true returns are simulated on the same distribution of tracks.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from header import origin, print_header

from rlcar.config.race import RaceConfig, TrackConfig
from rlcar.datasets import Dataset, DatasetWriter, World
from rlcar.datasets.behaviour import Behaviour, Noise
from rlcar.datasets.description import describe
from rlcar.datasets.recording import RaceRecorder, cars_for, record
from rlcar.evaluation.drivers import CAREFUL, careful, longest_ray
from rlcar.evaluation.off_policy.fitted_q import FittedQSettings
from rlcar.evaluation.off_policy.logged import discounted_returns, read_logged
from rlcar.evaluation.off_policy.policies import NamedPolicy
from rlcar.evaluation.off_policy.ranking import rank_correlation, regret_at
from rlcar.evaluation.off_policy.run import estimate, print_report
from rlcar.sim import SPEC
from rlcar.track import TRACK_SETS
from rlcar.types import Policy

RACE = RaceConfig(track=TrackConfig(half_width_px=20.0))
SEEDS = tuple(TRACK_SETS["train"])[:1024]
NOISE = Noise(0.1, 0.4)
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
    """Records behaviours, with equal shares."""
    with DatasetWriter(folder, describe(World(race=RACE), SPEC)) as writer:
        record(
            writer,
            behaviours,
            lambda behaviour, cars, lane: RaceRecorder(RACE, SEEDS, behaviour, cars, lane),
            transitions=transitions,
            cars=cars_for(transitions, None, True),
            seed=seed,
        )
    return Dataset.open(folder)


def true_return(policy: NamedPolicy, folder: Path, transitions: int, discount: float) -> float:
    """Simulates a policy without noise."""
    behaviour = Behaviour(policy.name, policy.policy, policy.params)
    logged = read_logged(write(folder, [behaviour], transitions, 12_345), 10**9)
    return float(discounted_returns(logged, discount)[logged.starts].mean())


def measure(options: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Estimates and simulates; returns the figures and every case."""
    settings = FittedQSettings(updates=options.updates)
    true = {
        policy.name: true_return(
            policy, root / f"true-{index}", options.transitions, settings.discount
        )
        for index, policy in enumerate(supported())
    }
    cases: list[dict[str, Any]] = []
    unknown, correlations, regrets = 0, [], []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        drivers = [*(rule(speed) for speed in SPEEDS), NamedPolicy("ray", longest_ray, None)]
        behaviours = [Behaviour(d.name, d.policy, d.params, NOISE) for d in drivers]
        data = write(root / f"data-{seed}", behaviours, options.transitions, seed)
        policies = supported() + (unsupported() if seed == options.first_seed else [])
        report = estimate(data, policies, None, settings, seed=seed)
        print_report(report)
        known = {}
        for name, result in report["policies"].items():
            if name not in true:
                unknown += result["verdict"] == "unknown" and result["estimate"] is None
                continue
            cases.append({"seed": seed, "policy": name, "true": true[name], **result})
            if result["estimate"] is not None:
                known[name] = result["estimate"]["mean"]
        pair = np.array(list(known.values())), np.array([true[name] for name in known])
        correlations.append(rank_correlation(*pair))
        regrets.append(regret_at(1, *pair))
    estimated = [case for case in cases if case["estimate"] is not None]
    inside = [
        case["estimate"]["low"] <= case["true"] <= case["estimate"]["high"] for case in estimated
    ]
    figures = {
        "ope_rank_correlation": float(np.min(correlations)),
        "ope_regret_at_1": float(np.max(regrets)),
        "ope_supported_estimated_pct": 100.0 * len(estimated) / len(cases),
        "ope_unknown_of_10": unknown,
        "ope_coverage": float(np.mean(inside)),
    }
    return {"figures": figures, "cases": cases}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transitions", type=int, default=60_000)
    parser.add_argument("--updates", type=int, default=FittedQSettings().updates)
    parser.add_argument("--seeds", type=int, default=2, help="number of data sets")
    parser.add_argument("--first-seed", type=int, default=10)
    parser.add_argument("--out", type=Path, help="file for the figures and every case, as JSON")
    options = parser.parse_args()
    print_header("jax", "numpy")
    load, start_s = os.getloadavg()[0], time.process_time()
    with tempfile.TemporaryDirectory() as name:
        result = measure(options, Path(name))
    result["figures"]["ope_cpu_seconds"] = time.process_time() - start_s
    for name, value in result["figures"].items():
        print(f"figure {name}={value:.6g}")
    if options.out is not None:
        text = json.dumps(result | {"origin": origin(load)}, indent=1) + "\n"
        options.out.write_text(text)


if __name__ == "__main__":
    main()
