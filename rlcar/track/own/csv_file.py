"""Reads the centre line of a road from a CSV file, in the layout of public racetrack data.

Each row is `x, y, width to the right, width to the left`, as in the race track database of the
Technical University of Munich (https://github.com/TUMFTM/racetrack-database). The first line names
the columns with their unit, such as `# x_m,y_m,w_tr_right_m,w_tr_left_m`. Both widths are measured
from the line to the edge of the road, seen in driving direction. y points up.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from rlcar.errors import ConfigError, reason_of
from rlcar.system.regular_file import NotRegularError, open_regular

COLUMNS = ("x", "y", "w_tr_right", "w_tr_left")
UNITS = ("m", "px")
LARGEST_BYTES = 1 << 24
MOST_ROWS = 100_000
FEWEST_ROWS = 8
_LARGEST_VALUE = 1e9
_HEADER = "x_m,y_m,w_tr_right_m,w_tr_left_m"
_OTHER_NAMES = {"width_right": "w_tr_right", "width_left": "w_tr_left"}
_FEWER = "keep every tenth row, for example"

Unit = Literal["m", "px"]


class CentreLine(NamedTuple):
    """A closed line and the widths of its road, in the unit of the file; each array is `[N]`."""

    path: Path
    unit: Unit | None  # None if the file names none
    x: np.ndarray
    y: np.ndarray  # up
    right: np.ndarray  # width from the line to the right edge
    left: np.ndarray
    row: np.ndarray  # number of the line in the file, from 1 on

    def at(self, *points: int) -> str:
        """Returns `file: line 7` for messages about some of its points."""
        rows = sorted({int(self.row[point]) for point in points})
        lines = " and ".join(str(row) for row in rows)
        return f"{self.path}: line{'s' if len(rows) > 1 else ''} {lines}"


def read_csv(path: Path) -> CentreLine:
    """Reads a centre line; raises ConfigError with file, line, value and what to do."""
    unit: Unit | None = None
    values: list[list[float]] = []
    rows: list[int] = []
    for number, text in _lines(path):
        fields = [field.strip() for field in text.lstrip("#").strip().split(",")]
        if not fields[-1] and len(fields) == len(COLUMNS) + 1:
            fields.pop()  # a comma at the end of a row
        is_comment = text.startswith("#")
        if not rows and (is_comment or not _is_number(fields[0])):
            unit = _unit_of(path, number, fields, is_comment) or unit
            continue
        if is_comment:
            continue
        if len(rows) == MOST_ROWS:
            raise ConfigError(
                f"{path}: it has more than {MOST_ROWS:,} points, which is the most that a track "
                f"may have: {_FEWER}"
            )
        values.append(_numbers(path, number, fields))
        rows.append(number)
    if not rows:
        raise ConfigError(
            f"{path}: it has no points: write the line {_HEADER}, and below it one row of numbers "
            "for each point of the centre line"
        )
    x, y, right, left = np.array(values, np.float64).T
    line = CentreLine(path, unit, x, y, right, left, np.array(rows))
    return _distinct(line)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the number and the text of each line that is not empty."""
    try:
        with open_regular(path, LARGEST_BYTES) as file:
            for number, data in enumerate(file, 1):
                text = data.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if "\0" in text:
                    raise ConfigError(f"{path}: line {number} is not text: give a CSV file")
                if text:
                    yield number, text
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: it is not a text file ({error.reason}): give a CSV file"
        ) from error
    except NotRegularError as error:
        reason = reason_of(error)
        if path.stat().st_size > LARGEST_BYTES:
            reason = (
                f"it has {path.stat().st_size:,} bytes, and a track has at most "
                f"{LARGEST_BYTES:,} bytes and {MOST_ROWS:,} points: {_FEWER}"
            )
        raise ConfigError(f"{path}: {reason}") from error
    except OSError as error:
        raise ConfigError(f"cannot read the track {path}: {reason_of(error)}") from error


def _unit_of(path: Path, number: int, fields: list[str], is_comment: bool) -> Unit | None:
    """Returns the unit that a header names; None for a comment, and for names without a unit."""
    names = [re.sub(r"[\s\[\]()]+", "_", field.lower()).strip("_") for field in fields]
    parts = [
        re.fullmatch(r"(x|y|w_tr_right|w_tr_left|width_right|width_left)(?:_(.*))?", name)
        for name in names
    ]
    found = [part for part in parts if part is not None]
    columns = [_OTHER_NAMES.get(part[1], part[1]) for part in found]
    if len(found) < len(fields) or columns != list(COLUMNS):
        if is_comment and not columns:
            return None
        raise ConfigError(
            f"{path}: line {number} names the columns {', '.join(fields)[:80]!r}: they must be "
            f"{_HEADER}, in this order, or the same with _px"
        )
    units = {part[2] for part in found}
    if units == {None}:
        return None
    unit = next(iter(units))
    if len(units) > 1 or unit not in UNITS:
        given = ", ".join(sorted(str(each) for each in units))
        raise ConfigError(
            f"{path}: line {number} names the unit {given!r}: all four columns must be in m, or "
            "all in px"
        )
    return "m" if unit == "m" else "px"


def _numbers(path: Path, number: int, fields: list[str]) -> list[float]:
    """Returns the four numbers of a row."""
    if len(fields) != len(COLUMNS):
        raise ConfigError(
            f"{path}: line {number} has {len(fields)} columns in place of {len(COLUMNS)}: write "
            "x, y, the width to the right and the width to the left, with commas between them"
        )
    values = []
    for name, field in zip(COLUMNS, fields, strict=True):
        if not _is_number(field):
            raise ConfigError(f"{path}: line {number}: {name} is {field[:40]!r}, not a number")
        value = float(field)
        if not math.isfinite(value) or abs(value) > _LARGEST_VALUE:
            raise ConfigError(
                f"{path}: line {number}: {name} is {field[:40]}: give a finite number up to "
                f"{_LARGEST_VALUE:g}, or remove the row"
            )
        if name in COLUMNS[2:] and value <= 0:
            side = "right" if name == COLUMNS[2] else "left"
            raise ConfigError(
                f"{path}: line {number}: the width to the {side} is {field[:40]}: give the "
                "distance from the line to that edge of the road, which is above 0"
            )
        values.append(value)
    return values


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _distinct(line: CentreLine) -> CentreLine:
    """Drops points that repeat the one before, and a last one that repeats the first."""
    point = np.stack([line.x, line.y], axis=1)
    keeps = (point != np.roll(point, 1, axis=0)).any(axis=1)
    if not keeps.any() or keeps.sum() < 2:
        raise ConfigError(
            f"{line.path}: it has a single point, {line.x[0]:g}, {line.y[0]:g}: a track is a "
            f"closed line of at least {FEWEST_ROWS} points"
        )
    if not keeps[0]:  # the last point repeats the first, which is the start line
        keeps[0], keeps[np.flatnonzero(keeps)[-1]] = True, True
        last = len(point) - 1
        while (point[last] == point[0]).all():
            keeps[last] = False
            last -= 1
    if keeps.sum() < FEWEST_ROWS:
        raise ConfigError(
            f"{line.path}: it has only {keeps.sum()} different points: a track needs at least "
            f"{FEWEST_ROWS}"
        )
    columns = (line.x, line.y, line.right, line.left, line.row)
    x, y, right, left, row = (column[keeps] for column in columns)
    return CentreLine(line.path, line.unit, x, y, right, left, row)
