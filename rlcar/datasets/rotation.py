"""Bounds the size of a data set that is recorded without an end, by deleting its oldest parts."""

import contextlib
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rlcar.datasets.description import Description, Part
from rlcar.types import Spec

_NAME = re.compile(r"part-(\d{5,})\.parquet")
# Of the limit; the largest share of one part before compression. A part may exceed it by its last
# episode, and the part that replaces it lies beside it while it is written.
_SHARE_OF_A_PART = 1 / 16
FILE_BYTES = 8192  # of a part without its numbers
# Ends the name of a part that is not listed any more. No pattern such as *.parquet finds it, so
# that programs which read whole folders meet no episode twice.
REPLACED = ".replaced"
_KEPT_S = 600.0  # longest time for which it is kept


class Rotation(NamedTuple):
    """Keeps the parts of a data set below a size by deleting the oldest ones.

    A part that is smaller than the others, such as that of a quiet hour, is joined with the next
    one, so that the number of parts stays low.
    """

    limit_bytes: int

    def part_transitions(self, spec: Spec, most: int) -> int:
        """Returns how many transitions a part holds at least, but not more than `most`."""
        share = int(self.limit_bytes * _SHARE_OF_A_PART) // bytes_of_step(spec)
        return max(1, min(most, share))


class ReplacedParts:
    """Parts that are not listed any more, for readers that opened the data set before.

    They are kept for some minutes, or until their room is needed.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._kept: list[tuple[Part, float]] = []  # oldest first, with the time of `add`

    def add(self, part: Part) -> None:
        """Renames a part, for which readers look under both names."""
        path = self._folder / part.name
        with contextlib.suppress(OSError):  # The next writer deletes what is left.
            path.replace(path.with_name(path.name + REPLACED))
            self._kept.append((part, time.monotonic()))

    def delete_some(self, most_bytes: int) -> None:
        """Deletes what was kept long enough, and the oldest ones until `most_bytes` are left."""
        size = sum(part.bytes for part, _ in self._kept)
        while self._kept:
            part, since_s = self._kept[0]
            if size <= most_bytes and time.monotonic() - since_s <= _KEPT_S:
                return
            with contextlib.suppress(OSError):
                (self._folder / (part.name + REPLACED)).unlink(missing_ok=True)
            del self._kept[0]
            size -= part.bytes


def bytes_of_step(spec: Spec) -> int:
    """Returns about how many bytes a transition has before compression."""
    if spec.image_shape is not None:
        height, width, channels = spec.image_shape
        numbers = 2 * height * width * channels
    else:
        numbers = 8 * spec.observation_size
    return numbers + 4 * spec.action_size + 40


def next_number(parts: Sequence[Part]) -> int:
    """Returns the number of the next part; after a deletion it is not the count of parts."""
    return number_of(parts[-1].name) + 1 if parts else 0


def next_episode(parts: Sequence[Part]) -> int:
    """Returns the number of the first episode of the next part."""
    return parts[-1].first_episode + parts[-1].episodes if parts else 0


def number_of(name: str) -> int:
    """Returns the number in the name of a part."""
    match = _NAME.fullmatch(name)
    assert match is not None, name
    return int(match[1])


def leftovers(folder: Path, description: Description) -> list[Path]:
    """Returns parts that are not listed: a writer replaced them, or was killed at that.

    The next writer deletes them. They cannot be told apart from other files by their content, so
    only names count that a writer has used or would use next.
    """
    listed = {part.name for part in description.parts}
    last = next_number(description.parts)
    return [
        path
        for path in folder.glob("part-*")
        if path.name not in listed
        and (match := _NAME.fullmatch(path.name.removesuffix(REPLACED)))
        and int(match[1]) <= last
    ]
