"""Opens the trackers of a run, and finds them again when it is resumed.

runs/first/tracking.json     what each tracker calls the run
"""

import contextlib
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from rlcar.config import Config
from rlcar.runs.tracking.background import BackgroundTracker
from rlcar.runs.tracking.mlflow_tracker import EXTRA as MLFLOW
from rlcar.runs.tracking.mlflow_tracker import URI_VARIABLE, MlflowTracker
from rlcar.runs.tracking.tracker import Row, Tracker, params_of, tags_of
from rlcar.runs.tracking.wandb_tracker import EXTRA as WANDB
from rlcar.runs.tracking.wandb_tracker import WandbTracker
from rlcar.system import durable
from rlcar.system.regular_file import read_regular

IDENTITIES = "tracking.json"


class Tracking:
    """The trackers of one run; without any, its methods do nothing.

    The end of the block sends the last rows, and marks a run that is not finished as interrupted.
    """

    def __init__(self, trackers: Mapping[str, Tracker]):
        self._trackers = [BackgroundTracker(one) for one in trackers.values()]
        self._is_finished = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def finished(self) -> None:
        """Says that the training has reached its end."""
        self._is_finished = True

    def write(self, env_steps: int, metrics: Mapping[str, float]) -> None:
        """Hands a row to every tracker; values that are not finite are left out."""
        if not self._trackers:
            return
        numbers = {name: float(value) for name, value in metrics.items()}
        finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
        row = Row(int(env_steps), time.time_ns() // 1_000_000, finite)
        for one in self._trackers:
            one.write(row)

    def close(self) -> None:
        """Sends the last rows; an outage ends the waiting after some seconds."""
        for one in self._trackers:
            one.close(self._is_finished)
        self._trackers = []


def open_tracking(folder: Path, config: Config, commit: str | None = None) -> Tracking:
    """Opens the trackers that the config names, and remembers what they call the run.

    Raises TrackingError if one cannot be used. A resumed training continues its run in the tracker.
    """
    settings = config.tracking
    if not settings.trackers:
        return Tracking({})
    known = texts_in(folder / IDENTITIES)
    tags, params = tags_of(folder, config, commit), params_of(config)
    name, project = folder.resolve().name, settings.project
    opened: dict[str, Tracker] = {}
    if MLFLOW in settings.trackers:
        uri = mlflow_uri(settings.mlflow_uri, folder.parent)
        opened[MLFLOW] = MlflowTracker(uri, project, name, tags, params, known.get(MLFLOW))
    if WANDB in settings.trackers:
        opened[WANDB] = WandbTracker(folder, project, name, tags, params, known.get(WANDB))
    identities = known | {kind: one.identity for kind, one in opened.items()}
    durable.replace_text(folder / IDENTITIES, json.dumps(identities, indent=2) + "\n")
    return Tracking(opened)


def mlflow_uri(setting: str, runs: Path) -> str:
    """Returns the address of MLflow: the setting, its own variable, or a database beside the runs.

    Not MLflow's default, which depends on the folder in which a command runs.
    """
    return setting or os.environ.get(URI_VARIABLE) or f"sqlite:///{runs.resolve()}/mlflow.db"


def texts_in(path: Path) -> dict[str, str]:
    """Returns the texts of a JSON file by their names; none if it cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        tree = json.loads(read_regular(path))
        if isinstance(tree, dict):
            return {str(name): str(value) for name, value in tree.items()}
    return {}
