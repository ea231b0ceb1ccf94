"""The cost of a series of kills: each kill, the sums, and a table."""

import dataclasses
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from rlcar.system.durable import replace_text


@dataclasses.dataclass
class Kill:
    """One kill and its consequences."""

    kind: str
    pid: int
    at_s: float  # since the start of the campaign
    env_steps: int  # of the training at that moment
    recovery_s: float | None = (
        None  # time to full rate; None: not before the next kill, or not in time
    )
    env_steps_lost: int = 0  # learned from, lost, and to be driven again
    checkpoints_lost: int = 0
    is_save_sound: bool = True  # the newest complete checkpoint, checked after the kill

    def describe(self, number: int, of: int | None) -> str:
        """Returns one line for the terminal."""
        recovery = "no full rate in time"
        if self.recovery_s is not None:
            recovery = f"full rate after {self.recovery_s:.1f} s"
        which = f"{number}/{of}" if of else str(number)
        return f"kill {which}: {self.kind} {self.pid} at {self.env_steps} env steps: {recovery}"


def make_report(
    kills: Sequence[Kill],
    *,
    completed: bool,
    failure: str | None,
    seconds: float,
    env_steps: int,
    undisturbed_rate: float | None,
    driver_restarts: int,
) -> dict[str, Any]:
    """Returns the sums over all kills and over those of each kind."""
    kinds = sorted({kill.kind for kill in kills})
    return {
        "kills": len(kills),
        "completed": completed,
        "failure": failure,
        "checkpoints_lost": _checkpoints_lost(kills),
        "env_steps": env_steps,
        "env_steps_lost": sum(kill.env_steps_lost for kill in kills),
        "seconds": round(seconds, 1),
        "undisturbed_env_steps_per_s": None
        if undisturbed_rate is None
        else round(undisturbed_rate, 1),
        "driver_restarts": driver_restarts,
        "by_kind": {kind: _sums([kill for kill in kills if kill.kind == kind]) for kind in kinds},
        "each": [dataclasses.asdict(kill) for kill in kills],
    }


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Writes the report as JSON; the file is complete or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(report, indent=2, allow_nan=False) + "\n")


def make_table(report: dict[str, Any]) -> Table:
    """Returns a table with a row for each kind of kill and the verdict as its title."""
    verdict = "completed" if report["completed"] else "NOT COMPLETED"
    table = Table(
        title=f"{report['kills']} kills in {report['seconds'] / 60:.1f} minutes: {verdict}, "
        f"{report['checkpoints_lost']} checkpoints lost",
        min_width=72,
    )
    for heading in ("kill", "times", "to full rate, median s", "worst s", "env steps lost"):
        table.add_column(heading, justify="left" if heading == "kill" else "right")
    for kind, sums in report["by_kind"].items():
        table.add_row(
            kind,
            str(sums["kills"]),
            _text(sums["recovery_median_s"]),
            _text(sums["recovery_worst_s"]),
            str(sums["env_steps_lost"]),
        )
    return table


def _sums(kills: Sequence[Kill]) -> dict[str, Any]:
    recoveries_s = [kill.recovery_s for kill in kills if kill.recovery_s is not None]
    return {
        "kills": len(kills),
        "recovered_in_time": len(recoveries_s),
        "recovery_median_s": round(statistics.median(recoveries_s), 2) if recoveries_s else None,
        "recovery_worst_s": round(max(recoveries_s), 2) if recoveries_s else None,
        "env_steps_lost": sum(kill.env_steps_lost for kill in kills),
        "checkpoints_lost": _checkpoints_lost(kills),
    }


def _checkpoints_lost(kills: Sequence[Kill]) -> int:
    return sum(kill.checkpoints_lost + (not kill.is_save_sound) for kill in kills)


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
