"""Sets episodes apart, by which policies are estimated that learned from the others."""

from pathlib import Path

from rlcar.datasets import Dataset
from rlcar.datasets.combine import split
from rlcar.datasets.writer import new_folder
from rlcar.errors import DatasetError
from rlcar.evaluation.off_policy.report import FEWEST_EPISODES
from rlcar.system import durable

SHARE, SEED = 0.2, 0
_FEWEST = round(FEWEST_EPISODES / SHARE)
_LEARNED, _HELD_OUT = "learned", "held-out"


def needs_held_out(dataset: Dataset) -> bool:
    """Returns whether estimates alone will decide: no environment, and no images."""
    world = dataset.world
    is_unknown = world.race is None and world.environment is None
    return is_unknown and dataset.spec.image_shape is None


def set_apart(dataset: Dataset, out: Path) -> tuple[Dataset, Dataset]:
    """Splits a data set below `out`: 0.8 of the episodes to learn from, and 0.2 to estimate by.

    The estimate from the episodes that a policy learned from is too high. A repeated call finds
    what an earlier one wrote. Raises DatasetError for too few episodes.
    """
    if dataset.episodes < _FEWEST:
        raise DatasetError(
            f"{dataset.folder} has {dataset.episodes} episodes, too few to choose by estimates: "
            f"record at least {_FEWEST}, or train one algorithm with rlcar train --data"
        )
    folder = out / "data" / dataset.fingerprint[:12]
    if not folder.exists():
        with durable.explaining_write_errors(folder, DatasetError):
            folder.parent.mkdir(parents=True, exist_ok=True)
        # One folder around both, so that a process that is killed leaves both or none.
        with new_folder(folder) as temporary:
            parts = [temporary / _LEARNED, temporary / _HELD_OUT]
            split(dataset, parts, [1.0 - SHARE, SHARE], SEED)
    return Dataset.open(folder / _LEARNED), Dataset.open(folder / _HELD_OUT)
