"""Joins the steps of sessions to episodes."""

from collections import Counter
from collections.abc import Iterator

import numpy as np

from rlcar.datasets import Episode
from rlcar.datasets.episode import Names
from serve.api.outcomes import DRIVERS, Outcome
from serve.recording.messages import Step, outcome_of

# An episode that has no end is cut after so many steps.
MOST_STEPS = 10_000
NO_REWARD = "no reward"


def policy_name(step: Step) -> str:
    """Returns what the column `policy` says: the version, and in a rollout also its arm."""
    if step.rollout is None:
        return f"version-{step.version}"
    arm = "canary" if step.is_canary else "stable"
    return f"version-{step.version} ({arm} of {step.rollout})"


class Running:
    """An episode of one car that has not ended; the last action waits for what follows it."""

    def __init__(self, observation: np.ndarray):
        self.observations = [observation]
        self.actions: list[np.ndarray] = []
        self.rewards: list[float] = []  # NaN if unknown
        self.logps: list[float] = []
        self.policies: list[str] = []
        self.sources: list[str] = []

    def episode(self, *, is_terminal: bool) -> Episode | None:
        """Returns the episode, or None if no step of it is complete or a reward is unknown."""
        steps = len(self.rewards)
        if not steps or np.isnan(self.rewards).any():
            return None
        logp = np.array(self.logps[:steps], np.float32)
        return Episode(
            np.stack(self.observations),
            np.stack(self.actions[:steps]),
            np.array(self.rewards, np.float32),
            is_terminal,
            not is_terminal,
            None if np.isnan(logp).any() else logp,
            _names(self.policies[:steps]),
            _names(self.sources[:steps]),
        )


class SessionEpisodes:
    """The running episodes of the N cars of one session."""

    def __init__(self, cars: int):
        self.model = -1  # version that drove the last step
        self.used_s = 0.0
        self._cars: list[Running | None] = [None] * cars
        self._sequence = -1
        self._step: int | None = None

    @property
    def steps(self) -> int:
        """The number of steps in memory, over all cars."""
        return sum(len(running.observations) for running in self._cars if running is not None)

    def add(
        self, step: Step, lost: Counter[str], most_steps: int = MOST_STEPS
    ) -> Iterator[Episode]:
        """Adds a step; yields the episodes that end with it, and counts the steps that are lost."""
        cars = len(self._cars)
        if self._is_gap(step):
            yield from self.finish(lost)
        self._sequence, self._step, self.model = step.sequence, step.step, step.model
        observation = np.frombuffer(step.observation, np.float32).reshape(cars, -1)
        action = np.frombuffer(step.action, np.float32).reshape(cars, -1)
        is_first = np.frombuffer(step.is_first, np.bool_)
        outcome, policy = outcome_of(step, cars), policy_name(step)
        for car in range(cars):
            running = self._cars[car]
            if running is not None and is_first[car]:  # its end was not reported
                yield from _ended(running, lost, is_terminal=False)
                running = None
            if running is None:
                running = Running(observation[car])
            else:
                _complete(running, outcome, car)
                running.observations.append(observation[car])
            is_terminal = outcome is not None and bool(outcome.is_terminal[car])
            is_last = is_terminal or (outcome is not None and bool(outcome.is_truncated[car]))
            if is_last or len(running.rewards) >= most_steps:
                yield from _ended(running, lost, is_terminal=is_terminal)
                # A long episode goes on with this observation.
                running = None if is_last else Running(observation[car])
            if running is not None:
                running.actions.append(action[car])
                running.policies.append(policy)
                running.sources.append(step.source)
                running.logps.append(np.nan)
            self._cars[car] = running

    def finish(self, lost: Counter[str]) -> Iterator[Episode]:
        """Yields the running episodes, which are cut off here; their last actions are unknown."""
        for car, running in enumerate(self._cars):
            if running is not None:
                yield from _ended(running, lost, is_terminal=False)
            self._cars[car] = None

    def _is_gap(self, step: Step) -> bool:
        """Whether observations are missing between the last step and this one."""
        if step.sequence != self._sequence + 1:
            return True
        return self._step is not None and step.step is not None and step.step != self._step + 1


def _complete(running: Running, outcome: Outcome | None, car: int) -> None:
    """Adds what followed the last action."""
    reward = None if outcome is None else outcome.reward
    running.rewards.append(np.nan if reward is None else float(reward[car]))
    if outcome is None or outcome.executed is None or not outcome.executed.driver[car]:
        return
    running.actions[-1] = outcome.executed.action[car]
    running.sources[-1] = DRIVERS[int(outcome.executed.driver[car]) - 1]
    running.logps[-1] = float(outcome.executed.logp[car])


def _ended(running: Running, lost: Counter[str], *, is_terminal: bool) -> Iterator[Episode]:
    episode = running.episode(is_terminal=is_terminal)
    if episode is not None:
        yield episode
    elif running.rewards:
        lost[NO_REWARD] += len(running.rewards)


def _names(names: list[str]) -> Names:
    return names[0] if len(set(names)) == 1 else np.array(names, dtype=object)
