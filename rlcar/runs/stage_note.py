"""`stage.json` in a run's folder: which attempt of which stage of a curriculum the run is.

The curriculum writes it when the run begins, and again when the stage is passed. Everything that
shows runs reads it: the monitor, the exporter of metrics and the live page.
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from rlcar.system import durable
from rlcar.system.regular_file import read_regular

FILE = "stage.json"
CURRICULUM_FILE = "curriculum.json"  # the state of a curriculum, in the curriculum's own folder


class StageNote(NamedTuple):
    """The place of a run in a curriculum, and the thresholds that it has to pass."""

    curriculum: str  # name of the curriculum's folder beside the run's
    stage: int  # from 1
    stages: int
    stage_name: str
    attempt: int  # from 1, of the present visit of the stage
    attempts: int
    regressions: int  # of the whole curriculum so far
    success_rate: float | None  # threshold; None if success does not count
    mean_reward: float | None  # threshold; None if the reward does not count
    is_passed: bool = False  # the policy of the run has passed the stage, which ended the run

    def sentence(self) -> str:
        """Returns the place and the thresholds in one line."""
        goals = []
        if self.success_rate is not None:
            goals.append(f"success {100 * self.success_rate:.0f} %")
        if self.mean_reward is not None:
            goals.append(f"mean reward {self.mean_reward:g}")
        passes = "passed" if self.is_passed else "passes"
        return (
            f"stage {self.stage} of {self.stages} ({self.stage_name}), attempt {self.attempt} of "
            f"{self.attempts}; {passes} at {' and '.join(goals)}"
        )


def write(folder: Path, note: StageNote) -> None:
    """Replaces the note of a run; raises OSError."""
    durable.replace_text(folder / FILE, json.dumps(note._asdict()) + "\n")


def read(folder: Path) -> StageNote | None:
    """Returns the note of a run; None without one, or when it is damaged."""
    try:
        tree = json.loads(read_regular(folder / FILE))
        note = StageNote(**tree)
    except (OSError, ValueError, TypeError):
        return None
    return note if _is_sound(note) else None


def is_attempt(folder: Path) -> bool:
    """Whether a run was made by a curriculum, even if its note is damaged."""
    return (folder / FILE).exists()


def curriculum_of(folder: Path) -> Path | None:
    """Returns the folder of the curriculum that a run is an attempt of, if it lies beside it.

    That curriculum decides how the run goes on. A run whose curriculum was deleted, or that was
    copied elsewhere, belongs to none.
    """
    note = read(folder)
    if note is None or Path(note.curriculum).name != note.curriculum:
        return None
    curriculum = folder.resolve().with_name(note.curriculum)
    return curriculum if (curriculum / CURRICULUM_FILE).exists() else None


def _is_sound(note: StageNote) -> bool:
    counts: tuple[Any, ...] = (note.stage, note.stages, note.attempt, note.attempts)
    goals = (note.success_rate, note.mean_reward)
    return (
        all(isinstance(count, int) and count > 0 for count in counts)
        and isinstance(note.regressions, int)
        and isinstance(note.is_passed, bool)
        and all(isinstance(text, str) for text in (note.curriculum, note.stage_name))
        and all(
            goal is None or (isinstance(goal, int | float) and math.isfinite(goal))
            for goal in goals
        )
    )
