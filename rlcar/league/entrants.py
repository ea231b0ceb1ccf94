"""The drivers of a league: versions of the registry and runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rlcar.agents import make_agent
from rlcar.config import Config, load_config
from rlcar.errors import UserError
from rlcar.evaluation.run_report import load_policy
from rlcar.registry import Registry
from rlcar.registry.jax_policy import jax_policy
from rlcar.runs.run import require_race, require_run
from rlcar.sim import SPEC
from rlcar.types import Params, Policy


class Entrant(NamedTuple):
    """A driver: a policy with its parameters."""

    name: str  # as it was given
    identity: str  # distinguishes it from other policies of the same name
    config: Config
    policy: Policy
    params: Params


def open_entrants(names: Sequence[str], registry: str) -> list[Entrant]:
    """Opens the drivers; a name is a run's folder, or else a version: its number or an alias.

    Raises UserError for fewer than two drivers, for a name that is given twice, and for a policy
    that does not drive the race; RegistryError for an unknown version.
    """
    if len(names) < 2:
        given = f"there is only {names[0]}" if names else "none is named"
        raise UserError(
            f"a league needs at least two drivers, and {given}: name versions (numbers or aliases) "
            "or run folders"
        )
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(
            f"{twice} is named twice: a driver cannot race against itself; name it once"
        )
    entrants = [
        _open_run(name) if (Path(name) / "config.json").is_file() else _open_version(name, registry)
        for name in names
    ]
    for index, one in enumerate(entrants):
        same = next((o for o in entrants[:index] if o.identity == one.identity), None)
        if same is not None:
            raise UserError(f"{same.name} and {one.name} are the same policy: name it once")
    return entrants


def _open_run(name: str) -> Entrant:
    folder = require_run(Path(name))
    config = load_config(folder / "config.json")
    require_race(folder, config)
    agent = make_agent(config, SPEC)
    save, params = load_policy(folder, folder, agent, config.seed)
    identity = f"run {folder.resolve().name}, {save.path.name}"
    return Entrant(folder.resolve().name, identity, config, agent.policy, params)


def _open_version(name: str, registry: str) -> Entrant:
    model = Registry(registry).open(name)
    config, policy, params = jax_policy(model)
    if not config.is_race:
        raise UserError(
            f"version {model.version.number} drives {config.world_label}, not the race: a league "
            "is about cars; leave it out"
        )
    return Entrant(name, f"version {model.version.number}", config, policy, params)
