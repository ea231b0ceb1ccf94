"""How fast the training and the server work, per second and for the CPU time that they had.

Other programs on the machine slow a soak down without any fault of its own. Each rate is therefore
also computed for the CPU time of the program, and for the CPU time that the program could have had.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from serve.soak.sample import Sample

# A training counts its env steps in blocks, each of which takes half a minute on a slow machine.
_WINDOW_S, _WINDOW_SHARE = 60.0, 0.05  # a rate is an average over the longer of the two


class Rate(NamedTuple):
    """How much work a program did over the last minutes; None where it had no CPU time."""

    per_s: float
    per_cpu_s: float | None  # of the CPU time that the program used
    # Of the CPU time that the program used or that nobody used: a program that waits for something
    # else than the CPU leaves time unused.
    per_available_cpu_s: float | None


def env_step_rates(samples: Sequence[Sample]) -> list[Rate | None]:
    """Returns the training's rate of env steps at each sample."""
    return _rates(samples, "training", [sample.env_steps for sample in samples])


def train_step_rates(samples: Sequence[Sample]) -> list[Rate | None]:
    """Returns the training's rate of train steps at each sample."""
    return _rates(samples, "training", [sample.train_steps for sample in samples])


def answer_rates(samples: Sequence[Sample]) -> list[Rate | None]:
    """Returns the server's rate of answers at each sample."""
    answers = itertools.accumulate(sample.heard.answers for sample in samples)
    return _rates(samples, "server", list(answers))


def _rates(
    samples: Sequence[Sample], group: str, done: Sequence[float | None]
) -> list[Rate | None]:
    """Returns the rates of a group of processes from the work that it had done at each sample.

    None at the first sample, before the first work, and where the work or the CPU time so far
    falls, as they do when a program starts again.
    """
    rates: list[Rate | None] = []
    first = 0
    window_s = max(_WINDOW_S, _WINDOW_SHARE * samples[-1].second) if samples else _WINDOW_S
    for last, sample in enumerate(samples):
        while first + 1 < last and sample.second - samples[first + 1].second >= window_s:
            first += 1
        rates.append(_rate(samples[first], sample, group, done[first], done[last]))
    return rates


def _rate(
    before: Sample, after: Sample, group: str, done: float | None, done_after: float | None
) -> Rate | None:
    seconds = after.second - before.second
    cpu_s = after.groups[group].cpu_s - before.groups[group].cpu_s
    if done is None or done_after is None or seconds <= 0.0:
        return None
    work, available_s = done_after - done, cpu_s + after.idle_cpu_s - before.idle_cpu_s
    if work < 0.0 or cpu_s < 0.0:
        return None
    return Rate(
        work / seconds,
        work / cpu_s if cpu_s > 0.0 else None,
        work / available_s if available_s > 0.0 else None,
    )
