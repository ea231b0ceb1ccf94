"""The gate of simulation: both versions drive the same tracks with the same random numbers."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rlcar.config import Config, make_race_config
from rlcar.config.race import RaceConfig
from rlcar.errors import UserError
from rlcar.evaluation.environment.gymnasium import EPISODES, make_episodes
from rlcar.evaluation.json_file import write_json
from rlcar.evaluation.laps import charged_steps, drive
from rlcar.gates.paired import GateResult, PairedCosts, decide
from rlcar.gates.pictures import draw_simulation
from rlcar.gates.settings import FIRST_TRACK_SEED, SimulationGate
from rlcar.gates.versions import require_different, version_name
from rlcar.registry import Model
from rlcar.registry.jax_policy import jax_policy
from rlcar.storage.checkpoint import provenance
from rlcar.system import durable
from rlcar.types import Params, Policy

RESULT, PICTURE = "simulation-gate.json", "simulation-gate.png"
_FIRST_EPISODE_SEED = 2_000_000  # neither training nor evaluation uses seeds from here on
_GRAND_PRIX = ("grand-prix", "grand-prix-5")  # two names of the last stage
_STAGES = tuple(f"grand-prix-{stage}" for stage in range(1, 5))

Say = Callable[[str], None]


class _Driver(NamedTuple):
    """A version as a policy in JAX."""

    name: str
    config: Config
    policy: Policy
    params: Params


def simulation_gate(
    candidate: Model,
    stable: Model,
    settings: SimulationGate,
    out: Path,
    *,
    say: Say = lambda text: None,
) -> GateResult:
    """Compares both versions lap by lap, in each world; see `rlcar.gates.paired.decide`.

    The cost of a lap is its number of steps, and of an episode of another environment its negative
    reward. A track that was not lapped costs the time limit. Writes `simulation-gate.png` and then
    `simulation-gate.json` into the folder `out`. Raises UserError if the two versions are one, or
    were not trained in the same kind of environment, or in one that cannot be made here.
    """
    require_different(candidate, stable)
    ours, theirs = _drivers(candidate, stable)
    if ours.config.is_race:
        unit, costs = "steps a lap", _race_costs(ours, theirs, settings, say)
    else:
        unit, costs = "reward an episode", _episode_costs(ours, theirs, settings, say)
    result = decide(costs, settings.margin, unit)
    figures = {
        "candidate": candidate.version.number,
        "stable": stable.version.number,
        **result.figures,
        "settings": settings.model_dump(by_alias=True),
        "provenance": provenance(settings.seed),
    }
    result = result._replace(figures=figures)
    with durable.explaining_write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        draw_simulation(out / PICTURE, result, costs)
        write_json(out / RESULT, result._asdict())
    return result


def _drivers(candidate: Model, stable: Model) -> tuple[_Driver, _Driver]:
    """Loads both versions; raises UserError if they cannot drive in the same environment."""
    ours = _Driver(version_name(candidate), *jax_policy(candidate))
    theirs = _Driver(version_name(stable), *jax_policy(stable))
    one, other = ours.config, theirs.config
    if one.is_race != other.is_race or one.environment.id != other.environment.id:
        raise UserError(
            f"{ours.name} was trained in {one.world_label}, and {theirs.name} in "
            f"{other.world_label}: compare versions of one environment"
        )
    if not one.is_race and not one.environment.id:
        raise UserError(
            f"the environment of {ours.name} is unknown, so it cannot be simulated: use the gate "
            "offPolicyEvaluation with recorded data"
        )
    is_same_policy = one.algorithm == other.algorithm and one.is_race
    if is_same_policy and getattr(one, one.algorithm) == getattr(other, one.algorithm):
        ours = ours._replace(policy=theirs.policy)  # compiled once for both
    return ours, theirs


def worlds_of(candidate: Config, stable: Config, names: list[str]) -> dict[str, RaceConfig]:
    """Returns the races to drive: the named worlds or, without names, those of the two versions.

    Raises ConfigError for an unknown world.
    """
    if names:
        return {name: make_race_config(name) for name in names}
    worlds = {stable.world: stable.race}
    if candidate.race != stable.race:
        same_name = candidate.world in worlds
        worlds[f"{candidate.world} of the candidate" if same_name else candidate.world] = (
            candidate.race
        )
    if any(name in _GRAND_PRIX for name in (stable.world, candidate.world)):
        worlds |= {name: make_race_config(name) for name in _STAGES if name not in worlds}
    return worlds


def _race_costs(
    ours: _Driver, theirs: _Driver, settings: SimulationGate, say: Say
) -> Mapping[str, PairedCosts]:
    first = FIRST_TRACK_SEED + settings.seed * settings.tracks
    # Each car draws its own numbers, so a track that is there twice is driven with two seeds.
    tracks = tuple(range(first, first + settings.tracks)) * settings.seeds
    costs = {}
    worlds = worlds_of(ours.config, theirs.config, settings.worlds)
    for name, race in worlds.items():
        paired = []
        for driver in (theirs, ours):
            say(f"{driver.name} drives {len(tracks):,} laps in {name}")
            laps = drive(driver.policy, driver.params, race, tracks, seed=settings.seed)
            paired.append(charged_steps(laps).reshape(settings.seeds, settings.tracks).T)
        costs[name] = PairedCosts(*paired)
    return costs


def _episode_costs(
    ours: _Driver, theirs: _Driver, settings: SimulationGate, say: Say
) -> Mapping[str, PairedCosts]:
    number = settings.tracks * settings.seeds
    first = _FIRST_EPISODE_SEED + settings.seed * number
    paired = []
    for driver in (theirs, ours):
        episodes = make_episodes(theirs.config, driver.policy)
        rewards: list[np.ndarray] = []
        for begin in range(first, first + number, EPISODES):
            say(f"{driver.name}: episode {begin - first + 1} of {number}")
            driven = episodes(driver.params, range(begin, min(begin + EPISODES, first + number)))
            assert driven is not None  # nothing stops it
            rewards.append(driven.reward)
        paired.append(-np.concatenate(rewards).reshape(settings.tracks, settings.seeds))
    return {theirs.config.environment.id: PairedCosts(*paired)}
