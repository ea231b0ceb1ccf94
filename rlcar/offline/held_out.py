"""Sets episodes apart, by which policies are estimated that learned from the others."""

from pathlib import Path

from rlcar.datasets import Dataset
from rlcar.datasets.combine import split
from rlcar.errors import DatasetError
from rlcar.evaluation.off_policy.report import FEWEST_EPISODES

SHARE, SEED = 0.2, 0
_FEWEST = round(FEWEST_EPISODES / SHARE)


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
    name = dataset.fingerprint[:12]
    folders = [out / "data" / f"{name}-{part}" for part in ("learned", "held-out")]
    if all(folder.exists() for folder in folders):
        return Dataset.open(folders[0]), Dataset.open(folders[1])
    for folder in folders:
        folder.parent.mkdir(parents=True, exist_ok=True)
    learned, held_out = split(dataset, folders, [1.0 - SHARE, SHARE], SEED)
    return learned, held_out
