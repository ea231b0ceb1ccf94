"""Writes the episodes of another format into a new data set."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from rlcar.datasets.dataset import Dataset
from rlcar.datasets.description import Description, Source, World, describe, sizes
from rlcar.datasets.episode import Episode
from rlcar.datasets.writer import DatasetWriter, OnTransitions, new_folder
from rlcar.errors import DatasetError
from rlcar.types import Spec


class Recording(Protocol):
    """Episodes in another format."""

    @property
    def spec(self) -> Spec:
        """The sizes of observations and actions."""

    def episodes(self) -> Iterator[Episode]:
        """Yields the episodes."""


def import_recording(
    recording: Recording,
    folder: Path,
    description: Description,
    origin: Path,
    on_progress: OnTransitions = lambda transitions: None,
) -> Dataset:
    """Writes every episode into a new folder, which is whole or absent.

    Raises DatasetError, which names the episode and the step, for numbers that are not valid.
    """
    if recording.spec != description.spec:
        raise DatasetError(
            f"{origin} has {sizes(recording.spec)}, but {description.world.label} has "
            f"{sizes(description.spec)}: name the world of the recording"
        )
    created = datetime.now(UTC).isoformat(timespec="seconds")
    source = Source(kind="import", about={"file": origin.name, "created": created})
    with new_folder(folder) as temporary, DatasetWriter(temporary, description, source) as writer:
        for number, episode in enumerate(recording.episodes()):
            try:
                writer.append(episode)
            except DatasetError as error:
                raise DatasetError(f"{origin}, {error} (it is number {number} there)") from None
            on_progress(writer.transitions)
        if not writer.transitions:
            raise DatasetError(f"{origin} holds no whole episode")
    return Dataset.open(folder)


def description_of(spec: Spec, world: World) -> Description:
    """Returns the description for imported numbers of a world."""
    return describe(world, spec)
