"""Compares the outcome of evaluations with the thresholds of a stage.

Two kinds of evaluation answer two questions. A *look* is an evaluation during the training, always
in the same episodes. Many looks at a policy that hovers below the threshold would sooner or later
show it above by chance, so a look only decides whether it is worth to stop and measure. The
*confirmation* drives more episodes, which nothing has seen before, and it alone passes a stage.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from rlcar.errors import UserError
from rlcar.evaluation.environment import FIRST_FRESH_SEED, LAST_FRESH_SEED
from rlcar.evaluation.statistics import wilson_interval
from rlcar.training.curriculum.machine import Score
from rlcar.training.curriculum.settings import Curriculum, Stage, lower_bound
from rlcar.types import Outcomes

# One-sided level of a look, one standard error: a policy just above its threshold is soon measured.
LOOK_LEVEL = 0.84
_TWO_SIDED_95 = 1.96


class Verdict(NamedTuple):
    """Outcomes, compared with the thresholds of a stage."""

    passed: bool
    episodes: int
    successes: int | None
    success_low: float | None  # lower Wilson bound; None if the environment tells no success
    level: float  # its one-sided confidence
    mean_reward: float

    @property
    def success_rate(self) -> float | None:
        """Share of episodes that succeeded; None if the environment tells no success."""
        return None if self.successes is None else self.successes / self.episodes

    def sentence(self) -> str:
        """Returns the figures in words."""
        reward = f"mean reward {self.mean_reward:.4g}"
        if self.successes is None or self.success_low is None:
            return f"{self.episodes} episodes, {reward}"
        return (
            f"{self.successes} of {self.episodes} episodes succeeded, which is at least "
            f"{100 * self.success_low:.1f} % with {100 * self.level:.4g} % confidence; {reward}"
        )

    def tree(self) -> dict[str, Any]:
        """Returns the figures for the journal."""
        return {**self._asdict(), "success_rate": self.success_rate}


def judge(stage: Stage, outcomes: Outcomes, level: float) -> Verdict:
    """Compares outcomes with the thresholds of a stage.

    The lower Wilson bound of the success rate at the one-sided `level` has to reach `success_rate`,
    and the mean reward has to reach `mean_reward`. Raises UserError if the environment does not
    tell what the thresholds need, or if the mean reward is not a finite number.
    """
    _require_finite(stage, outcomes)
    if outcomes.successes is None and stage.success_rate is not None:
        raise UserError(
            f"stage {stage.name!r} has a success_rate, but its environment does not report whether "
            "an episode succeeded: let it set is_success in the info of an episode's last step, or "
            "use mean_reward alone"
        )
    low = None
    if outcomes.successes is not None:
        low = lower_bound(outcomes.successes, outcomes.episodes, level)
    is_successful = stage.success_rate is None or (low is not None and low >= stage.success_rate)
    is_rewarded = stage.mean_reward is None or outcomes.mean_reward >= stage.mean_reward
    return Verdict(
        is_successful and is_rewarded,
        outcomes.episodes,
        outcomes.successes,
        low,
        level,
        outcomes.mean_reward,
    )


def score_of(stage: Stage, verdict: Verdict) -> Score:
    """Orders policies by what a stage demands: success before reward, or the reward alone."""
    rate = 0.0 if stage.success_rate is None else verdict.success_rate or 0.0
    return rate, verdict.mean_reward


class Recheck(NamedTuple):
    """An earlier stage, evaluated again with the policy of a later one."""

    stage: str
    success_rate: float | None
    success_high: float | None  # upper end of the 95 % Wilson interval
    success_rate_before: float | None  # when the stage was passed
    mean_reward: float
    mean_reward_before: float
    is_forgotten: bool


def recheck(stage: Stage, now: Outcomes, before: dict[str, Any]) -> Recheck:
    """Compares an earlier stage with its thresholds again; `before` is the verdict that passed it.

    It counts as forgotten if its success rate is below the threshold even at the upper end of the
    interval, or if its mean reward is below the threshold. Raises UserError if that is not finite.
    """
    _require_finite(stage, now)
    high = rate = None
    if now.successes is not None:
        high = wilson_interval(now.successes, now.episodes, _TWO_SIDED_95)[1]
        rate = now.successes / now.episodes
    fails = stage.success_rate is not None and high is not None and high < stage.success_rate
    pays_less = stage.mean_reward is not None and now.mean_reward < stage.mean_reward
    return Recheck(
        stage.name,
        rate,
        high,
        before["success_rate"],
        now.mean_reward,
        before["mean_reward"],
        fails or pays_less,
    )


def _require_finite(stage: Stage, outcomes: Outcomes) -> None:
    if not math.isfinite(outcomes.mean_reward):
        raise UserError(
            f"the mean reward of {outcomes.episodes} episodes of stage {stage.name!r} is "
            f"{outcomes.mean_reward}: correct the rewards of its environment"
        )


def fresh_seeds(curriculum: Curriculum, *purpose: int) -> list[int]:
    """Returns the seeds of episodes that no training and no other evaluation has driven.

    `purpose` distinguishes the evaluations of a curriculum: equal numbers give equal seeds, so that
    an evaluation that was interrupted is repeated as it was.
    """
    generator = np.random.default_rng([curriculum.base.seed, *purpose])
    size = curriculum.confirmation_episodes
    return [int(seed) for seed in generator.integers(FIRST_FRESH_SEED, LAST_FRESH_SEED, size=size)]
