"""An append-only journal: one line of JSON for each entry, chained by checksums.

    {"sequence": 3, "time_s": 1764518400.5, "content": {...}, "previous": "9f…", "sha256": "4…"}

The checksum of a line covers everything before it, so that a line that was changed, removed or
moved is noticed. A line is synced to the disk before `append` returns. A process that is killed
within `append` leaves an incomplete last line, which the next reader drops.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rlcar.errors import UserError
from rlcar.system import durable
from rlcar.system.regular_file import read_regular

_FIRST = "0" * 64  # what the first line names as the checksum of the line before it


class JournalLine(NamedTuple):
    """One entry of a journal."""

    sequence: int  # 1 for the first
    time_s: float  # Unix time of the writer's clock
    content: dict[str, Any]
    sha256: str


class DamagedJournalError(UserError):
    """A journal was changed by something other than `Journal.append`."""


class Journal:
    """The lines of one file; only the holder of the folder's lease may append."""

    def __init__(self, path: Path):
        """Reads all lines; raises DamagedJournalError, which names the first wrong line."""
        self.path = path
        self.lines, self._sound_bytes = _read(path)

    def append(self, content: Mapping[str, Any]) -> JournalLine:
        """Writes one line and syncs it; raises UserError if it cannot be written.

        Raises DamagedJournalError if another process has appended since this one has read the file,
        whose lines stay as they are.
        """
        line = JournalLine(len(self.lines) + 1, round(time.time(), 3), dict(content), "")
        previous = self.lines[-1].sha256 if self.lines else _FIRST
        line = line._replace(sha256=_checksum(line, previous))
        text = json.dumps({**line._asdict(), "previous": previous}, allow_nan=False) + "\n"
        with durable.explaining_write_errors(self.path):
            is_new = not self.path.exists()
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                self._require_unchanged(descriptor)
                os.ftruncate(descriptor, self._sound_bytes)  # drops an incomplete last line
                os.lseek(descriptor, 0, os.SEEK_END)
                written_bytes = _write_all(descriptor, text.encode())
                os.fsync(descriptor)
            except OSError:  # a line that may not be on the disk must not stay in the file
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, self._sound_bytes)
                raise
            finally:
                os.close(descriptor)
            if is_new:
                durable.sync_folder(self.path.parent)
        self._sound_bytes += written_bytes
        self.lines.append(line)
        return line

    def _require_unchanged(self, descriptor: int) -> None:
        """Raises DamagedJournalError unless the file ends with what this process knows.

        An incomplete line after that is of a process that was killed, a complete one is not.
        """
        size = os.fstat(descriptor).st_size
        rest = os.pread(descriptor, max(0, size - self._sound_bytes), self._sound_bytes)
        if size < self._sound_bytes or b"\n" in rest:
            raise DamagedJournalError(
                f"another process has changed the journal {self.path}: this one ends, and leaves "
                "the journal as it is"
            )


def _write_all(descriptor: int, data: bytes) -> int:
    written = 0
    while written < len(data):
        written += os.write(descriptor, data[written:])
    return written


def _read(path: Path) -> tuple[list[JournalLine], int]:
    """Returns the complete lines and the number of bytes that they take."""
    try:
        data = read_regular(path)
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise DamagedJournalError(f"cannot read the journal {path}: {error.strerror}") from error
    sound_bytes = data.rfind(b"\n") + 1
    lines: list[JournalLine] = []
    for number, text in enumerate(data[:sound_bytes].splitlines(), 1):
        previous = lines[-1].sha256 if lines else _FIRST
        line = _parse(text, number, previous)
        if line is None:
            raise DamagedJournalError(
                f"line {number} of the journal {path} does not match its checksum, so it was "
                "edited or damaged: restore the file from a backup, or begin again under another "
                "name"
            )
        lines.append(line)
    return lines, sound_bytes


def _parse(text: bytes, number: int, previous: str) -> JournalLine | None:
    try:
        tree = json.loads(text)
        line = JournalLine(tree["sequence"], tree["time_s"], tree["content"], tree["sha256"])
        is_sound = tree["previous"] == previous and line.sha256 == _checksum(line, previous)
    except (ValueError, KeyError, TypeError):
        return None
    return line if is_sound and line.sequence == number else None


def _checksum(line: JournalLine, previous: str) -> str:
    covered = [previous, line.sequence, line.time_s, line.content]
    return hashlib.sha256(json.dumps(covered, sort_keys=True).encode()).hexdigest()
