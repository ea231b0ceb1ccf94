"""What every experiment tracker can do, and what it is told about a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from rlcar.config import Config
from rlcar.errors import UserError

PREFIX = "rlcar."  # of the tags that lead from a run to its versions and their rollouts


class TrackingError(UserError):
    """A tracker cannot be used: its package is missing, or it refuses."""


class Row(NamedTuple):
    """One row of metrics."""

    env_steps: int
    time_ms: int  # Unix time
    metrics: dict[str, float]  # finite


class Tracker(Protocol):
    """One run in one tracker; its methods may block, and may raise anything if it is away."""

    @property
    def name(self) -> str:
        """What messages call the tracker."""

    @property
    def identity(self) -> str:
        """What finds the same run in the tracker again, for a training that is resumed."""

    def write(self, rows: Sequence[Row]) -> None:
        """Sends rows; some of them may be sent twice."""

    def close(self, is_finished: bool) -> None:
        """Marks the run as finished, or as interrupted."""


def missing_package(extra: str, error: ModuleNotFoundError) -> TrackingError:
    """Returns the error for a tracker that is not installed."""
    return TrackingError(
        f"tracking with {extra} needs the package {error.name}: pip install 'rlcar[{extra}]'"
    )


def tags_of(folder: Path, config: Config, commit: str | None) -> dict[str, str]:
    """Returns where a run comes from, for the tags of a tracker; unknown parts are left out."""
    known = {
        "run": folder.resolve().name,
        "folder": str(folder.resolve()),
        "data": config.data.fingerprint,
        "start_from": config.training.start_from,
        "algorithm": config.algorithm,
        "world": config.world if config.is_race else config.environment.id,
        "seed": str(config.seed),
        "commit": commit or "",
    }
    return {f"{PREFIX}{name}": value for name, value in known.items() if value}


def params_of(config: Config) -> dict[str, str]:
    """Returns the settings by their dotted names, without those of other algorithms."""
    tree = config.model_dump(mode="json")
    sections = ("race", "environment", "data", "replay", "training", config.algorithm)
    plain = {name: value for name, value in tree.items() if not isinstance(value, dict)}
    found = _flat(plain | {name: tree[name] for name in sections})
    return {name: str(value) for name, value in found.items()}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
