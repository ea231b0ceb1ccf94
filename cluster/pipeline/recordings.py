"""Finds the recorded episodes that no run has used, and copies them into a data set of their own.

Servers go on recording meanwhile: they add episodes to their folders, join small parts and delete
the oldest ones. An episode keeps its number, so the numbers tell what is new.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from rlcar.datasets import Dataset, DatasetWriter, Episode
from rlcar.datasets.combine import merge
from rlcar.datasets.description import DESCRIPTION, Description, Source, read_description
from rlcar.datasets.rotation import next_episode
from rlcar.datasets.writer import new_folder, require_same
from rlcar.errors import DatasetError

_TRIES = 10  # of one folder, in which a server replaces parts meanwhile


class Span(NamedTuple):
    """Consecutive episodes of one server's recording."""

    recording: str  # when the recording began; another one in the same folder counts from 0
    first: int
    end: int  # the number after the last episode


class News(NamedTuple):
    """Episodes that no run has used."""

    spans: dict[str, Span]  # by the name of the server's folder
    episodes: int
    transitions: int  # about, where a part is new only in part


class Copied(NamedTuple):
    """A data set of new episodes."""

    dataset: Dataset
    faults: list[str]  # one sentence for each part, recording and gap that was left out


class NothingLeftError(DatasetError):
    """The recordings are there, and none of the new episodes can be read."""


def find_new(recordings: Path, used: Mapping[str, Span]) -> News:
    """Counts what was recorded since the runs that used the spans `used`.

    Raises DatasetError if a description cannot be read or the servers record different worlds.
    """
    spans: dict[str, Span] = {}
    episodes, transitions = 0, 0.0
    first: Description | None = None
    for folder in _folders(recordings):
        found = read_description(folder)
        if not found.parts:
            continue
        first = first or found
        require_same(folder, found, first)
        began, known = _began(found), used.get(folder.name)
        end = next_episode(found.parts)
        is_same = known is not None and known.recording == began and known.end <= end
        since = known.end if known is not None and is_same else 0
        spans[folder.name] = Span(began, since, end)
        for part in found.parts:
            fresh = min(part.episodes, max(0, part.first_episode + part.episodes - since))
            episodes += fresh
            transitions += part.transitions * fresh / part.episodes
    return News(spans, episodes, round(transitions))


def copy_new(recordings: Path, spans: Mapping[str, Span], folder: Path) -> Copied:
    """Copies the episodes of the spans into a new folder; what is not there is left out and named.

    Raises NothingLeftError if no episode is left, and DatasetError if no recording is.
    """
    places = {place.name: place for place in _folders(recordings)}
    faults: list[str] = []
    found: dict[str, Description] = {}
    for name, span in spans.items():
        description = read_description(places[name]) if name in places else None
        if description is not None and _began(description) == span.recording:
            found[name] = description
        elif span.first < span.end:
            missing = f"the recording {name} is not in {recordings} any more"
            faults.append(missing if description is None else _begun_anew(places[name]))
    if not found:
        raise DatasetError(
            f"{recordings} holds none of the recordings any more with which the run began"
        )
    sources = [source for one in found.values() for source in one.sources]
    prints = [one.fingerprint for one in found.values()]
    source = Source(kind="merge", about={"folders": list(found), "data_sha256": prints})
    description = next(iter(found.values())).model_copy(update={"sources": sources})
    with new_folder(folder) as temporary, DatasetWriter(temporary, description, source) as writer:
        for name in found:
            for episode in _episodes(places[name], spans[name], faults):
                writer.append(episode)
        if not writer.episodes:
            reason = faults[0] if faults else "the servers have deleted them"
            raise NothingLeftError(f"no new episode in {recordings} can be read: {reason}")
    return Copied(Dataset.open(folder), faults)


def with_earlier(new: Dataset, earlier: list[Path], folder: Path) -> Dataset:
    """Merges the data sets of earlier runs, as far as they are of the same world, with a new one.

    Returns the new one if there are none. A folder that an earlier call has written is kept.
    """
    kept = [Dataset.open(one) for one in earlier if (one / DESCRIPTION).exists()]
    kept = [one for one in kept if one.world.is_same(new.world) and one.spec == new.spec]
    if not kept:
        return new
    if (folder / DESCRIPTION).exists():
        return Dataset.open(folder)
    return merge([*kept, new], folder)


def _folders(recordings: Path) -> list[Path]:
    """Returns the folders of the servers' recordings; or the folder itself, if it is one."""
    if not recordings.is_dir():
        raise DatasetError(
            f"{recordings} does not exist: record sessions into it with rlcar serve --record "
            f"{recordings}"
        )
    if (recordings / DESCRIPTION).exists():
        return [recordings]
    return sorted(
        path.parent
        for path in recordings.glob(f"*/{DESCRIPTION}")
        if not path.parent.name.startswith(".")
    )


def _began(description: Description) -> str:
    """Returns when a recording began, which tells it from a later one in the same folder."""
    return str(description.sources[0].about.get("created", "")) if description.sources else ""


def _begun_anew(folder: Path) -> str:
    return f"{folder} was begun anew meanwhile: the run's episodes in it are gone"


def _episodes(folder: Path, span: Span, faults: list[str]) -> Iterator[Episode]:
    """Yields the episodes of a span that are still there; adds a sentence for each gap."""
    done = span.first
    for _ in range(_TRIES):
        description = read_description(folder)
        if _began(description) != span.recording:
            faults.append(_begun_anew(folder))
            return
        data = Dataset(folder, description)
        is_current = True
        for index, part in enumerate(data.parts):
            end = part.first_episode + part.episodes
            if end <= done or part.first_episode >= span.end:
                continue
            try:
                episodes = list(data.part_episodes(index))
            except DatasetError as error:
                if part not in read_description(folder).parts:  # the server has replaced it
                    is_current = False
                    break
                faults.append(str(error))
                episodes = []
            if part.first_episode > done:
                faults.append(_gap(folder, done, part.first_episode))
            for number, episode in enumerate(episodes, part.first_episode):
                if done <= number < span.end:
                    yield episode
            done = end
        if is_current:
            if done < span.end:
                faults.append(_gap(folder, done, span.end))
            return
    faults.append(f"{folder} changed {_TRIES} times while it was read")


def _gap(folder: Path, first: int, end: int) -> str:
    return (
        f"{end - first:,} episodes of {folder}, from number {first} on, were deleted before they "
        "were copied"
    )
