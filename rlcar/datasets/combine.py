"""Merges data sets of the same world, and splits one into several by episodes."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rlcar.datasets.dataset import Dataset
from rlcar.datasets.description import Source
from rlcar.datasets.writer import DatasetWriter, OnTransitions, new_folder, require_same
from rlcar.errors import DatasetError


def merge(
    datasets: Sequence[Dataset], folder: Path, on_progress: OnTransitions = lambda transitions: None
) -> Dataset:
    """Writes the episodes of all data sets, in their order, into a new folder.

    Raises DatasetError if the worlds or schemas differ, or if a data set is named twice.
    """
    first = datasets[0]
    fingerprints: dict[str, Path] = {}
    for data in datasets:
        require_same(data.folder, data.description, first.description)
        if data.fingerprint in fingerprints:
            raise DatasetError(
                f"{data.folder} holds the same episodes as {fingerprints[data.fingerprint]}: "
                "merge it once"
            )
        fingerprints[data.fingerprint] = data.folder
    sources = [source for data in datasets for source in data.description.sources]
    description = first.description.model_copy(update={"sources": sources})
    folders = [data.folder.resolve().name for data in datasets]
    source = Source(kind="merge", about={"folders": folders, "data_sha256": list(fingerprints)})
    with new_folder(folder) as temporary, DatasetWriter(temporary, description, source) as writer:
        for data in datasets:
            for episode in data.episodes_iter():
                writer.append(episode)
                on_progress(writer.transitions)
    return Dataset.open(folder)


def split(
    data: Dataset,
    folders: Sequence[Path],
    shares: Sequence[float],
    seed: int,
    on_progress: OnTransitions = lambda transitions: None,
) -> list[Dataset]:
    """Draws for each episode the folder into which it is written, with the given shares.

    Every folder gets at least one episode. Raises DatasetError if there are too few episodes.
    """
    if data.episodes < len(folders):
        raise DatasetError(
            f"{data.folder} has {data.episodes} episodes, too few for {len(folders)} data sets"
        )
    chosen = _choices(data.episodes, np.array(shares, np.float64), seed)
    done = 0
    with contextlib.ExitStack() as stack:
        # The writers end before the folders get their names.
        temporary = [stack.enter_context(new_folder(folder)) for folder in folders]
        writers = [
            stack.enter_context(
                DatasetWriter(folder, data.description, _part_of(data, float(share), seed))
            )
            for folder, share in zip(temporary, shares, strict=True)
        ]
        for index, episode in zip(chosen, data.episodes_iter(), strict=True):
            writers[index].append(episode)
            done += episode.transitions
            on_progress(done)
    return [Dataset.open(folder) for folder in folders]


def _part_of(data: Dataset, share: float, seed: int) -> Source:
    about: dict[str, str | int | float | bool | None | list[str]] = {
        "folders": [data.folder.resolve().name],
        "data_sha256": [data.fingerprint],
        "share": share,
        "seed": seed,
    }
    return Source(kind="split", about=about)


def _choices(episodes: int, shares: np.ndarray, seed: int) -> np.ndarray:
    """Returns the index of the data set of each episode; the counts are those of the shares."""
    bounds = np.round(np.cumsum(shares) / shares.sum() * episodes).astype(np.int64)
    # At least one each, from the left and then from the right.
    bounds = np.maximum(bounds, np.arange(1, len(shares) + 1))
    bounds = np.minimum(bounds, episodes - np.arange(len(shares))[::-1])
    chosen = np.repeat(np.arange(len(shares)), np.diff(bounds, prepend=0))
    return np.random.default_rng(seed).permutation(chosen)
