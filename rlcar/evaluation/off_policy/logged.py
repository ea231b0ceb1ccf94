"""Recorded episodes as flat arrays, and what an estimator needs of them."""

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from rlcar.datasets import Dataset, Episode
from rlcar.errors import DatasetError


class Logged(NamedTuple):
    """M transitions of E whole episodes, one episode after the other."""

    observation: np.ndarray  # [M, O] float32
    next_observation: np.ndarray  # [M, O] float32
    action: np.ndarray  # [M, A] float32; one-hot for discrete actions
    reward: np.ndarray  # [M] float32
    is_terminal: np.ndarray  # [M] bool: a crash or a finish, after which no reward follows
    action_logp: np.ndarray  # [M] float32; NaN where it is unknown
    bounds: np.ndarray  # [E + 1] first row of each episode, and M
    is_discrete: bool

    @property
    def episodes(self) -> int:
        """The number of episodes (E)."""
        return len(self.bounds) - 1

    @property
    def starts(self) -> np.ndarray:
        """The first row of each episode `[E]`."""
        return self.bounds[:-1]

    @property
    def episode(self) -> np.ndarray:
        """The episode of each row `[M]`."""
        return np.repeat(np.arange(self.episodes), np.diff(self.bounds))

    @property
    def previous_action(self) -> np.ndarray:
        """The action before each row `[M, A]`; 0 at the start of an episode."""
        previous = np.roll(self.action, 1, axis=0)
        previous[self.starts] = 0.0
        return previous

    @property
    def earned(self) -> np.ndarray:
        """The sum of the rewards of the episode before each row `[M]`, float64."""
        total = np.cumsum(self.reward, dtype=np.float64) - self.reward
        return total - np.repeat(total[self.starts], np.diff(self.bounds))


def read_logged(dataset: Dataset, most_transitions: int, seed: int = 0) -> Logged:
    """Reads whole episodes of a data set, drawn at random, with about so many transitions.

    Every episode of every part is as likely: a part may hold the episodes of one driver alone.
    Raises DatasetError for images, which the estimators cannot use.
    """
    require_numbers(dataset)
    share = min(1.0, most_transitions / dataset.transitions)
    count = max(1, round(share * dataset.episodes))
    is_chosen = np.zeros(dataset.episodes, bool)
    is_chosen[np.random.default_rng(seed).permutation(dataset.episodes)[:count]] = True
    chosen = list(itertools.compress(dataset.episodes_iter(), is_chosen))
    return logged_of(chosen, dataset.spec.action_size, is_discrete=dataset.spec.is_discrete)


def require_numbers(dataset: Dataset) -> None:
    """Raises DatasetError for a data set of images."""
    if dataset.spec.image_shape is not None:
        raise DatasetError(
            f"the observations of {dataset.folder} are images: off-policy evaluation needs "
            "numbers, so evaluate the policy in its environment with rlcar evaluate"
        )


def logged_of(episodes: Sequence[Episode], action_size: int, *, is_discrete: bool) -> Logged:
    """Puts episodes one after the other."""
    lengths = [episode.transitions for episode in episodes]
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    is_terminal = np.zeros(bounds[-1], bool)
    is_terminal[bounds[1:] - 1] = [episode.is_terminal for episode in episodes]
    logp = [
        np.full(length, np.nan) if episode.action_logp is None else episode.action_logp
        for episode, length in zip(episodes, lengths, strict=True)
    ]
    action = _joined(episode.action for episode in episodes)
    if is_discrete:
        action = np.eye(action_size)[action.astype(np.int64)]
    return Logged(
        _joined(episode.observation[:-1] for episode in episodes).astype(np.float32),
        _joined(episode.observation[1:] for episode in episodes).astype(np.float32),
        action.astype(np.float32),
        _joined(episode.reward for episode in episodes).astype(np.float32),
        is_terminal,
        _joined(logp).astype(np.float32),
        bounds,
        is_discrete,
    )


def discounted_returns(logged: Logged, discount: float) -> np.ndarray:
    """The discounted sum of the rewards from each row to the end of its episode, `[M]` float64.

    G_t = r_t + discount G_t+1, with nothing after the last recorded reward.
    """
    returns = logged.reward.astype(np.float64)
    length = np.diff(logged.bounds)
    # All episodes at once, from their last row to the first.
    for behind in range(1, int(length.max())):
        row = logged.bounds[1:][length > behind] - 1 - behind
        returns[row] += discount * returns[row + 1]
    return returns


def held_out_episodes(episodes: int, seed: int) -> np.ndarray:
    """Returns the indices of a random fifth of the episodes, at least one."""
    order = np.random.default_rng(seed).permutation(episodes)
    return np.sort(order[: max(1, episodes // 5)])


def rows_of(logged: Logged, episodes: np.ndarray) -> np.ndarray:
    """Returns the rows of some episodes; an episode that is named twice is there twice."""
    return np.concatenate(
        [np.arange(logged.bounds[index], logged.bounds[index + 1]) for index in episodes]
    )


def _joined(arrays: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.asarray(array) for array in arrays])
