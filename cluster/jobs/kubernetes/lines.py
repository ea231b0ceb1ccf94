"""Which lines of a container's log are new after a connection was lost or a pod replaced."""

import datetime
import re
from collections import Counter
from typing import NamedTuple

_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)")
_NS_PER_S = 1_000_000_000
# Lines of two streams of one container may be written slightly out of the order of their times.
_REMEMBERED_S = 5


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

    Lines of the submitter itself may come in between, so that a line is looked for among the next
    ones of the output so far.
    """

    _WINDOW = 200  # lines

    def __init__(self) -> None:
        self._shown: list[int] = []  # hashes
        self._position = 0
        self._is_repeating = False

    def start_again(self) -> None:
        """Call it when another pod begins to print the output of the same Ray job."""
        self._position, self._is_repeating = 0, bool(self._shown)

    def is_new(self, text: str) -> bool:
        """Says whether this line was not shown before, and remembers it."""
        key = hash(text)
        if self._is_repeating:
            window = self._shown[self._position : self._position + self._WINDOW]
            if key in window:
                self._position += window.index(key) + 1
                self._is_repeating = self._position < len(self._shown)
                return False
            return True
        self._shown.append(key)
        return True
