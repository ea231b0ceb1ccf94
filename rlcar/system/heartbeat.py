"""Signs of life of this process: what it is doing, and when it last made progress.

Loops call `beat` after each piece of work. Code that works for a long time without returning to
Python, such as a compiler, declares a `stage` first. `rlcar.system.lease` writes both into the
run's folder, and monitors and campaigns judge them with `is_frozen`. A training on Ray has limits
of its own for its processes: `Fleet`, `OrderedFleet` and `LearnerHandle` ask each how long it has
been silent and compare that with the deadlines of `ClusterConfig`.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

# How long a process may go without a beat while it works step by step.
FROZEN_AFTER_S = 60.0

WORKING = "working"

# Factor by which each stage may be silent for longer than FROZEN_AFTER_S: its work is one call that
# cannot report, and the first call may include compilation.
STAGES = {
    WORKING: 1.0,
    "driving": 15.0,
    "evaluating": 15.0,
    "learning": 15.0,
    "compiling": 15.0,
    "saving": 15.0,
    "reporting": 15.0,
    "starting": 15.0,  # reads a checkpoint, builds the agent, starts Ray
    "supervising": 15.0,  # the training loop on Ray, which replaces silent processes itself
}


class SignOfLife(NamedTuple):
    """What a process reports about its work."""

    stage: str
    silent_s: float  # since its last beat


_lock = threading.Lock()
_stages = [WORKING]
_last_beat_s = time.monotonic()


def beat() -> None:
    """Notes that a piece of work is done; cheap enough for every step of an environment."""
    global _last_beat_s
    _last_beat_s = time.monotonic()


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Declares that the enclosed work belongs to a stage of `STAGES`; begins and ends with a beat.

    Stages nest: the innermost one counts.
    """
    if name not in STAGES:
        raise ValueError(f"there is no stage {name!r}; add it to STAGES")
    with _lock:
        _stages.append(name)
    beat()
    try:
        yield
    finally:
        with _lock:
            # Not simply the last one: threads may leave their stages in another order.
            del _stages[len(_stages) - 1 - _stages[::-1].index(name)]
        beat()


def sign_of_life() -> SignOfLife:
    """Returns the present stage and the time since the last beat."""
    with _lock:
        name = _stages[-1]
    return SignOfLife(name, max(0.0, time.monotonic() - _last_beat_s))


def patience_s(stage_name: str, frozen_after_s: float = FROZEN_AFTER_S) -> float:
    """Returns how long a stage may be silent; the longest time for an unknown stage."""
    return frozen_after_s * STAGES.get(stage_name, max(STAGES.values()))


def is_frozen(reported: SignOfLife, frozen_after_s: float = FROZEN_AFTER_S) -> bool:
    """Says whether a process has been silent for longer than its stage allows.

    Monitors and campaigns share this definition of "frozen" for runs.
    """
    return reported.silent_s > patience_s(reported.stage, frozen_after_s)
