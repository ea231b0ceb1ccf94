"""Cuts the blocks of N environments into episodes."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from rlcar.datasets.episode import Episode


class Block(NamedTuple):
    """T time steps of N environments, with the action that followed each of them.

    The action after the last time step of an episode is ignored by the environment.
    """

    observation: np.ndarray  # [T, N, O] float32, or images [T, N, height, width, channels] uint8
    reward: np.ndarray  # [T, N] float32, for the action that led to this time step
    is_first: np.ndarray  # [T, N] bool
    is_last: np.ndarray  # [T, N] bool
    is_terminal: np.ndarray  # [T, N] bool
    action: np.ndarray  # [T, N, A] float32, or [T, N] int32
    action_logp: np.ndarray  # [T, N] float32


class Cutter:
    """Collects the time steps of N environments until their episodes have ended."""

    def __init__(self, environments: int, policy: str, *, knows_log_probability: bool):
        self._policy, self._knows = policy, knows_log_probability
        self._pieces: list[list[Block]] = [[] for _ in range(environments)]
        self._is_open = np.ones(environments, bool)  # may begin another episode
        self.ended_transitions = 0

    @property
    def running_transitions(self) -> int:
        """The number of transitions in episodes that have not ended."""
        return sum(max(0, _steps(pieces) - 1) for pieces in self._pieces)

    @property
    def is_done(self) -> bool:
        """Whether no episode is running and none may begin."""
        return not self._is_open.any() and not any(self._pieces)

    def begin_no_more(self) -> None:
        """Ignores every episode that begins from now on."""
        self._is_open[:] = False

    def add(self, block: Block) -> Iterator[Episode]:
        """Adds a block; yields the episodes that end in it."""
        for index, pieces in enumerate(self._pieces):
            steps = Block(*(field[:, index] for field in block))
            start = 0
            for end in (np.flatnonzero(steps.is_last) + 1).tolist():
                if pieces or self._is_open[index]:
                    pieces.append(_cut(steps, start, end))
                    yield self._ended(index)
                start = end
            if start < len(steps.reward) and (pieces or self._is_open[index]):
                # Copied, because the rest of the block would otherwise stay in memory.
                pieces.append(Block(*(field.copy() for field in _cut(steps, start, None))))

    def finish(self) -> Iterator[Episode]:
        """Yields the running episodes, truncated by the end of the recording."""
        for index, pieces in enumerate(self._pieces):
            if _steps(pieces) > 1:
                yield self._ended(index)
            pieces.clear()

    def _ended(self, index: int) -> Episode:
        pieces = self._pieces[index]
        steps = Block(*(np.concatenate(fields) for fields in zip(*pieces, strict=True)))
        pieces.clear()
        is_terminal = bool(steps.is_terminal[-1])
        self.ended_transitions += len(steps.reward) - 1
        return Episode(
            steps.observation,
            steps.action[:-1],
            steps.reward[1:],
            is_terminal,
            not is_terminal,
            steps.action_logp[:-1] if self._knows else None,
            self._policy,
        )


def _cut(steps: Block, start: int, end: int | None) -> Block:
    return Block(*(field[start:end] for field in steps))


def _steps(pieces: list[Block]) -> int:
    return sum(len(piece.reward) for piece in pieces)
