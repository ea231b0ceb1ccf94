"""Bounds the size of a data set that is recorded without an end, by deleting its oldest parts."""

import re
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
    """Returns parts that are not listed because a writer was killed as it added or deleted them.

    The next writer deletes them. They cannot be told apart from other files by their content, so
    only names count that a writer has used or would use next.
    """
    listed = {part.name for part in description.parts}
    last = next_number(description.parts)
    return [
        path
        for path in folder.glob("part-*.parquet")
        if path.name not in listed
        and (match := _NAME.fullmatch(path.name))
        and int(match[1]) <= last
    ]
