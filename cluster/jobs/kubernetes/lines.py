"""Which lines of a container's log are new after a connection was lost or a pod replaced."""

import datetime
import re
from collections import Counter
from typing import NamedTuple

_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)")
_NS_PER_S = 1_000_000_000
# Lines of two streams of one container may be written slightly out of the order of their times.
_REMEMBERED_S = 5
_SEVERAL = -1


class LogLine(NamedTuple):
    """A line of a log with the time at which the container runtime received it."""

    time_ns: int
    text: str


def read_line(line: str) -> LogLine | None:
    """Reads a line that begins with a timestamp; None for a message without one."""
    stamp, _, text = line.partition(" ")
    match = _TIMESTAMP.fullmatch(stamp)
    if match is None:
        return None
    whole = datetime.datetime.fromisoformat(match[1] + match[3].replace("Z", "+00:00"))
    fraction = (match[2] or "").ljust(9, "0")[:9]
    return LogLine(round(whole.timestamp()) * _NS_PER_S + int(fraction), text)


class LogCursor:
    """Remembers which lines of one container's log were read, so that none is shown twice.

    Reading resumes at a whole second, because the kubelet cuts off fractions. The lines of that
    second arrive again. They are recognised by their time and text; equal lines are counted.
    """

    def __init__(self) -> None:
        self._newest_ns = -1
        self._recent: Counter[LogLine] = Counter()
        self._repeated: Counter[LogLine] = Counter()
        self._awaits_overlap = False

    @property
    def since(self) -> str | None:
        """The time from which to read again; None to read from the beginning."""
        if self._newest_ns < 0:
            return None
        whole = datetime.datetime.fromtimestamp(self._newest_ns // _NS_PER_S, datetime.UTC)
        return f"{whole:%Y-%m-%dT%H:%M:%SZ}"

    def resume(self) -> None:
        """Call it before the log is read again from `since`."""
        self._repeated = Counter(self._recent)
        self._awaits_overlap = self._newest_ns >= 0

    def is_new(self, line: LogLine) -> bool:
        """Says whether this line was not read before, and remembers it."""
        if self._repeated[line] > 0:
            self._repeated[line] -= 1
            self._awaits_overlap = False
            return False
        self._recent[line] += 1
        if line.time_ns > self._newest_ns:
            self._newest_ns = line.time_ns
            self._forget_old()
        return True

    def has_gap(self) -> bool:
        """Says, once, whether lines were lost: the log does not contain the last line any more.

        The kubelet keeps only the newest part of a long log. Call it for the first new line after
        `resume`.
        """
        lost, self._awaits_overlap = self._awaits_overlap, False
        return lost

    def _forget_old(self) -> None:
        oldest_ns = self._newest_ns - _REMEMBERED_S * _NS_PER_S
        if len(self._recent) > 1000 or next(iter(self._recent)).time_ns < oldest_ns:
            self._recent = Counter(
                {line: count for line, count in self._recent.items() if line.time_ns >= oldest_ns}
            )


class RepeatedOutput:
    """Hides what a replaced submitter pod prints again: `ray job logs` begins with the first line.

    The submitter prints lines of its own in between, and the log of the new pod begins later if its
    node has deleted the oldest part. A line that occurs once in the output so far therefore tells
    how far the new pod has come. Lines that occur several times, such as empty ones, are hidden as
    often as they occur after that point.
    """

    _MOST_UNKNOWN = 200  # different lines without a known one: more than a submitter prints

    def __init__(self) -> None:
        self._shown: list[int] = []  # hashes of the lines of former pods
        self._added: list[int] = []  # of the lines that this pod has added
        self._places: dict[int, int] = {}  # in `_shown`; `_SEVERAL` for lines that occur again
        self._position, self._left = 0, 0  # lines repeated, and lines that may still be repeated
        self._ahead: Counter[int] = Counter()  # the latter, counted
        self._taken: Counter[int] = Counter()  # lines that were hidden after the position
        self._unknown: set[int] = set()
        self._is_repeating, self._has_lost_track = False, False

    def start_again(self) -> None:
        """Call it when another pod begins to print the output of the same Ray job."""
        self._shown += self._added
        self._added = []
        self._places = {}
        for place, key in enumerate(self._shown):
            self._places[key] = _SEVERAL if key in self._places else place
        self._position, self._left = 0, len(self._shown)
        self._ahead, self._taken = Counter(self._shown), Counter()
        self._unknown = set()
        self._is_repeating = bool(self._shown)

    def is_new(self, text: str) -> bool:
        """Says whether this line was not shown before, and remembers it."""
        key = hash(text)
        if self._is_repeating and self._is_repeated(key):
            return False
        self._added.append(key)
        return True

    def has_lost_track(self) -> bool:
        """Says, once, whether the lines of a new pod do not continue those of the former one."""
        lost, self._has_lost_track = self._has_lost_track, False
        return lost

    def _is_repeated(self, key: int) -> bool:
        place = self._places.get(key)
        if place is None:
            self._unknown.add(key)
            if len(self._unknown) >= self._MOST_UNKNOWN:
                self._is_repeating = False
                has_none = self._left == len(self._shown)
                self._has_lost_track = has_none or self._left > self._MOST_UNKNOWN
            return False
        skipped = 0
        if place == _SEVERAL:
            if not self._ahead[key]:
                return False
            self._ahead[key] -= 1
            self._taken[key] += 1
            self._left -= 1
        else:
            skipped = self._move_behind(place)
            self._unknown.clear()
        # After a jump to the end, lines from before it may follow: see `_move_behind`.
        self._is_repeating = self._left > 0 or skipped > 0
        return True

    def _move_behind(self, place: int) -> int:
        """Continues after a line that occurs once; returns how many lines were left out."""
        skipped = -1
        if place < self._position:
            # An earlier line was one of the submitter itself that only looked like a later line.
            self._ahead, self._taken = Counter(self._shown[place + 1 :]), Counter()
        else:
            for key in self._shown[self._position : place + 1]:
                if self._taken[key]:
                    self._taken[key] -= 1
                else:
                    self._ahead[key] -= 1
                    skipped += 1
            for key, count in self._taken.items():
                self._ahead[key] += count
            self._taken.clear()
        self._position, self._left = place + 1, len(self._shown) - place - 1
        return skipped
