"""The settings of a training that are taken from a data set."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlcar.config import Config, make_config, make_race_config
from rlcar.config.presets import WORLDS
from rlcar.datasets import Dataset
from rlcar.errors import DatasetError
from rlcar.offline.plan import candidates_for


def settings_of_data(
    folder: Path, world: str | None, environment: str | None
) -> tuple[str | None, list[str]]:
    """Returns the world of a data set, if it has a name, and overrides for its other settings.

    Raises DatasetError if `world` or `environment`, which the command line gives, contradict it.
    """
    dataset = Dataset.open(folder)
    recorded = dataset.world
    settings: dict[str, dict[str, Any]] = {
        "data": {
            "folder": str(dataset.folder.resolve()),
            "fingerprint": dataset.fingerprint,
            "origins": dataset.description.origins,
            "has_environment": recorded.race is not None or recorded.environment is not None,
        }
    }
    if not settings["data"]["has_environment"]:
        # A version of the registry acts on another machine, where the data is not.
        spec = dataset.spec
        settings["data"] |= spec._asdict() | {"image_shape": spec.image_shape or ()}
    name = None
    if recorded.race is not None:
        settings["race"] = recorded.race.model_dump(mode="json")
        name = next((each for each in WORLDS if make_race_config(each) == recorded.race), None)
    if recorded.environment is not None:
        settings["environment"] = recorded.environment.model_dump(mode="json")
    given_id = recorded.environment.id if recorded.environment is not None else None
    if environment is not None and environment != given_id:
        raise DatasetError(
            f"--env {environment} contradicts {folder}, which was recorded in {recorded.label}: "
            "leave --env out"
        )
    if world is not None and (recorded.race is None or make_race_config(world) != recorded.race):
        raise DatasetError(
            f"--world {world} contradicts {folder}, which was recorded in another world: leave "
            "--world out"
        )
    overrides = [f"{section}={json.dumps(tree)}" for section, tree in settings.items()]
    return world or name, overrides


def candidate_configs(
    learned: Dataset, algorithms: Sequence[str], mode: str, overrides: Sequence[str], seed: int
) -> dict[str, Config]:
    """Returns the settings of every candidate of a selection, by its algorithm."""
    world, of_data = settings_of_data(learned.folder, None, None)
    return {
        name: make_config(
            None, mode, None, [*of_data, *overrides], world=world, algorithm=name, seed=seed
        )
        for name in candidates_for(learned.spec, list(algorithms))
    }
