"""Reads `metrics.jsonl`, one JSON object in each line, also while a training appends to it."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rlcar.errors import UserError
from rlcar.system.durable import replace_text
from rlcar.system.regular_file import open_regular, read_regular

Row = dict[str, Any]

LARGEST_FILE_BYTES = 1 << 30
_READ_BYTES = 1 << 26  # at most, in one call of `MetricsFollower.read`


class NewRows(NamedTuple):
    """What a training has written since the last call."""

    rows: list[Row]
    # The file was replaced: a resumed training drops the rows that it will write again.
    is_restarted: bool
    written_unix_s: float  # when the file was last changed


class MetricsFollower:
    """Reads the rows that were added since the last call; skips lines that are not rows."""

    def __init__(self, path: Path, tail_bytes: int | None = None):
        """`tail_bytes` limits the first call to the end of the file; None reads it from its start.

        The first row of such an end is usually incomplete, and then skipped.
        """
        self._path, self._tail_bytes = path, tail_bytes
        self._file_id: tuple[int, int] | None = None
        self._offset = 0

    def read(self) -> NewRows | None:
        """Returns the new rows; None when there is no such file, or it cannot be read.

        A call reads 64 MiB at most, and the next call reads on from there. A row without its
        newline is left for a later call.
        """
        try:
            with open_regular(self._path) as file:
                status = os.fstat(file.fileno())
                file_id = status.st_dev, status.st_ino
                is_restarted = file_id != self._file_id or status.st_size < self._offset
                if is_restarted:
                    tail_bytes = status.st_size if self._tail_bytes is None else self._tail_bytes
                    self._file_id, self._offset = file_id, max(0, status.st_size - tail_bytes)
                file.seek(self._offset)
                data = file.read(_READ_BYTES)
        except OSError:
            return None
        lines, newline, _ = data.rpartition(b"\n")
        if not newline and len(data) == _READ_BYTES:  # no row is that long
            lines, newline = data, b""
        self._offset += len(lines) + len(newline)
        rows = [row for line in lines.split(b"\n") if (row := _row_or_none(line)) is not None]
        return NewRows(rows, is_restarted, status.st_mtime)


def read_metrics(path: Path) -> list[Row]:
    """Reads all rows; empty without a file.

    An incomplete last line is dropped, as a killed process leaves one. Raises UserError for any
    other line that is not a row.
    """
    return [row for _, row in _lines_and_rows(Path(path))]


def drop_rows_after(path: Path, env_steps: int | None) -> float:
    """Rewrites the file without later rows and without an incomplete one.

    Returns `time_s` of the last row that was kept, 0 without one. With `env_steps=None` no row
    counts as later.
    """
    kept = [
        (line, row)
        for line, row in _lines_and_rows(path)
        if env_steps is None or _env_steps(row) <= env_steps
    ]
    replace_text(path, "".join(line + "\n" for line, _ in kept))
    return float(kept[-1][1].get("time_s") or 0.0) if kept else 0.0


def _lines_and_rows(path: Path) -> list[tuple[str, Row]]:
    if not path.exists():
        return []
    lines = read_regular(path, LARGEST_FILE_BYTES).decode(errors="replace").split("\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            rows.append((line, _parse_row(line)))
        except ValueError as error:
            if number == len(lines):
                break  # the row that a killed process was writing
            raise UserError(
                f"{path}, line {number} is not a row of metrics ({error}): repair or move the file"
            ) from error
    return rows


def _parse_row(line: str | bytes) -> Row:
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError("not an object")
    if not isinstance(row.get("env_steps", 0), int | float):
        raise ValueError("its env_steps are not a number")
    return row


def _row_or_none(line: bytes) -> Row | None:
    try:
        row = _parse_row(line)
    except ValueError:
        return None
    return row if "env_steps" in row else None


def _env_steps(row: Mapping[str, Any]) -> int:
    return int(row.get("env_steps", 0))
