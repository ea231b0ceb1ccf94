"""Turns `careful@0.2=0.5`, a run or a published version into a behaviour policy."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rlcar.agents import make_agent
from rlcar.config import (
    Config,
    load_config,
    make_config,
    merge,
    parse_config,
    parse_override,
)
from rlcar.datasets.behaviour import (
    RANDOM,
    Behaviour,
    Noise,
    noise_of_random,
    parse_noise,
    random_policy,
)
from rlcar.datasets.description import sizes
from rlcar.errors import DatasetError, MissingAliasError, UserError
from rlcar.evaluation.drivers import DRIVERS, REFERENCE, make_reference
from rlcar.evaluation.environment import spec_of
from rlcar.evaluation.run_report import load_policy
from rlcar.registry import Registry
from rlcar.registry.jax_policy import jax_policy
from rlcar.runs.run import require_run
from rlcar.types import Params, Policy, Spec

_ENDING = re.compile(
    r"(?P<name>.+?)(?:@(?P<noise>explore|[0-9.][-+0-9.e]*))?(?:=(?P<share>[^=/]*))?"
)
_MOST_KNOWN_TRACKS = 1024  # their racing lines take about a second for each hundred


class Asked(NamedTuple):
    """One driver as the user named it."""

    label: str  # without the share; stored with each episode
    name: str
    noise: Noise | None
    share: float


class Learned(NamedTuple):
    """A learned policy with the config of its training."""

    config: Config
    policy: Policy
    params: Params


def parse_driver(text: str) -> Asked:
    """Parses NAME[@NOISE][=SHARE]; raises DatasetError."""
    match = _ENDING.fullmatch(text)
    if match is None:
        raise DatasetError(f"the driver {text!r} has no name: give NAME, NAME@NOISE or NAME=SHARE")
    share_text = match["share"]
    try:
        share = 1.0 if share_text is None else float(share_text)
    except ValueError:
        share = float("nan")
    if not 0 < share < float("inf"):
        raise DatasetError(f"{text}: the share {share_text!r} must be a positive number")
    noise = None if match["noise"] is None else parse_noise(match["noise"], text)
    label = text if share_text is None else text[: -len(share_text) - 1]
    return Asked(label, match["name"], noise, share)


def load_learned(name: str, registry: str) -> Learned | None:
    """Loads a run, a checkpoint or a published version; None for the name of a built-in driver.

    Raises UserError if it is none of these.
    """
    if name in (*DRIVERS, REFERENCE, RANDOM):
        return None
    path = Path(name)
    if path.is_dir():
        folder = require_run(path)
        config = load_config(folder / "config.json")
        agent = make_agent(config, spec_of(config))
        _, params = load_policy(folder, path, agent, config.seed)
        return Learned(config, agent.policy, params)
    try:
        return Learned(*jax_policy(Registry(registry).open(name)))
    except MissingAliasError:
        drivers = ", ".join((*DRIVERS, REFERENCE, RANDOM))
        raise DatasetError(
            f"there is no driver {name!r}: name one of {drivers}, the folder of a run, or a "
            f"version in {registry}"
        ) from None


def choose_world(
    learned: Sequence[Learned | None],
    world: str | None,
    environment: str | None,
    overrides: Sequence[str],
) -> Config:
    """Returns the config of the environment: that of the options, else of the first policy."""
    if world is not None and environment is not None:
        raise UserError(f"--world {world} and --env {environment} exclude each other: choose one")
    trained = [each.config for each in learned if each is not None]
    if world is not None or environment is not None or not trained:
        return make_config(world=world, environment=environment, overrides=overrides)
    tree = trained[0].model_dump(mode="json")
    for override in overrides:
        tree = merge(tree, parse_override(override))
    return parse_config(tree)


def with_frames(config: Config, spec: Spec) -> Config:
    """Names the number of stacked images in the settings if the policy sees several.

    A data set of such observations must not depend on what learns from it later.
    """
    environment = config.driven_environment
    if config.is_race or spec.image_shape is None or environment.frame_stack == 1:
        return config
    return config.model_copy(update={"environment": environment})


def make_behaviours(
    asked: Sequence[Asked],
    learned: Sequence[Learned | None],
    config: Config,
    spec: Spec,
    track_seeds: Sequence[int],
) -> list[Behaviour]:
    """Returns the behaviours; raises UserError if one cannot drive in this environment."""
    behaviours = []
    for one, policy in zip(asked, learned, strict=True):
        behaviours.append(_behaviour(one, policy, config, spec, track_seeds))
    return behaviours


def _behaviour(
    asked: Asked,
    learned: Learned | None,
    config: Config,
    spec: Spec,
    track_seeds: Sequence[int],
) -> Behaviour:
    noise = asked.noise or Noise()
    name = asked.label
    if learned is not None:
        theirs = spec_of(learned.config)
        if theirs != spec:
            raise DatasetError(
                f"{asked.name} needs {sizes(theirs)}, but the environment has {sizes(spec)}: "
                "record it in the environment of its training"
            )
        return Behaviour(name, learned.policy, learned.params, noise, asked.share)
    if noise.is_own:
        raise DatasetError(
            f"{asked.label}: only learned policies can explore; give {asked.name} a noise such as "
            f"{asked.name}@0.2"
        )
    if asked.name == RANDOM:
        return Behaviour(name, random_policy(spec), None, noise_of_random(spec), asked.share)
    if not config.is_race:
        raise DatasetError(
            f"{asked.name} drives only in the race: record {config.environment.id} with {RANDOM}, "
            "a run or a published version"
        )
    if asked.name == REFERENCE:
        if len(track_seeds) > _MOST_KNOWN_TRACKS:
            raise DatasetError(
                f"{REFERENCE} needs the racing line of each of {len(track_seeds):,} tracks: give "
                f"at most {_MOST_KNOWN_TRACKS:,} with --track-count"
            )
        return Behaviour(
            name, make_reference(tuple(track_seeds), config.race), None, noise, asked.share
        )
    return Behaviour(name, DRIVERS[asked.name], None, noise, asked.share)
