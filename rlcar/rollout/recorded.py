"""Reads blocks of recorded episodes from a data set, in place of driving."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from rlcar.datasets import Dataset, Episode
from rlcar.datasets.description import ObservationMoments
from rlcar.errors import CheckpointError, DatasetError
from rlcar.rollout.compiled import Episodes
from rlcar.types import Spec, Trajectory, Weights

_Steps = dict[str, np.ndarray]  # consecutive time steps, by the names of `Trajectory`


class Position(NamedTuple):
    """How far a data set has been read."""

    epoch: int  # passes that are complete
    episodes: int  # read in the present pass


class RecordedRollout:
    """Yields blocks `[T, N]`: each of N lanes reads one recorded episode after another.

    Every pass over the data has another random order, given by the seed. The order does not depend
    on the weights, and the state between two blocks can be saved, so a resumed training continues
    exactly. At most one part of the data set is in memory, and one episode for each lane.
    """

    def __init__(self, dataset: Dataset, seed: int, lanes: int, block_length: int):
        self._dataset, self._seed, self._length = dataset, seed, block_length
        self._position = Position(0, 0)
        self._stream = self._open_stream()
        self._lanes: list[_Steps] = [_no_steps(dataset.spec)] * lanes

    @property
    def moments(self) -> ObservationMoments | None:
        """Mean and standard deviation of the observations; None for images."""
        return self._dataset.moments

    def collect(self, weights: Weights) -> tuple[Trajectory, Episodes]:
        """Reads one block; the weights only give it their version."""
        rewards: list[float] = []
        lengths: list[int] = []
        blocks = []
        for lane, waiting in enumerate(self._lanes):
            pieces, number = [waiting], len(waiting["reward"])
            while number < self._length:
                episode = self._next_episode()
                rewards.append(float(episode.reward.sum()))
                lengths.append(episode.transitions)
                pieces.append(time_steps_of(episode, self._dataset.spec))
                number += len(pieces[-1]["reward"])
            steps = {name: np.concatenate([piece[name] for piece in pieces]) for name in waiting}
            blocks.append({name: array[: self._length] for name, array in steps.items()})
            # Copies, so that a lane does not keep the whole block in memory.
            self._lanes[lane] = {name: x[self._length :].copy() for name, x in steps.items()}
        arrays = {name: np.stack([block[name] for block in blocks], axis=1) for name in blocks[0]}
        version = np.full(arrays["reward"].shape, weights.version, np.int32)
        episodes = Episodes(
            version.size,
            np.array(rewards, np.float32),
            np.array(lengths, np.int32),
            None,
        )
        return Trajectory(**arrays, weights_version=version), episodes

    def saved(self) -> dict[str, np.ndarray]:
        """Returns the position in the data, and what each lane has not delivered yet."""
        lengths = [len(lane["reward"]) for lane in self._lanes]
        joined = {
            name: np.concatenate([lane[name] for lane in self._lanes]) for name in self._lanes[0]
        }
        return {
            "position": np.array(self._position, np.int64),
            "lengths": np.array(lengths, np.int64),
            **joined,
        }

    def restore(self, saved: dict[str, np.ndarray]) -> None:
        """Continues from what `saved` returned; raises CheckpointError if it does not fit."""
        names = {"position", "lengths", *self._lanes[0]}
        if saved.keys() != names or len(saved["lengths"]) != len(self._lanes):
            raise CheckpointError(
                "the checkpoint does not hold the position in a data set that is read in "
                f"{len(self._lanes)} lanes: resume with the same training.cars and data"
            )
        ends = np.cumsum(saved["lengths"])
        slices = [slice(end - n, end) for n, end in zip(saved["lengths"], ends, strict=True)]
        self._lanes = [
            {name: saved[name][where].copy() for name in self._lanes[0]} for where in slices
        ]
        self._position = Position(*(int(number) for number in saved["position"]))
        self._stream = self._open_stream()

    def close(self) -> None:
        """Does nothing, because no file stays open between two blocks."""

    def _open_stream(self) -> Iterator[Episode]:
        epoch, episodes = self._position
        seed = np.random.SeedSequence([self._seed, epoch]).generate_state(1)[0]
        return self._dataset.episodes_iter(seed=int(seed), skip=episodes)

    def _next_episode(self) -> Episode:
        episode = next(self._stream, None)
        if episode is None:  # the end of a pass
            if not self._position.episodes:
                raise DatasetError(f"{self._dataset.folder} holds no episodes: record some")
            self._position = Position(self._position.epoch + 1, 0)
            self._stream = self._open_stream()
            return self._next_episode()
        self._position = self._position._replace(episodes=self._position.episodes + 1)
        return episode


def time_steps_of(episode: Episode, spec: Spec) -> _Steps:
    """Returns an episode of T transitions as T + 1 time steps, as environments return them."""
    number = episode.transitions + 1
    action = episode.action
    if spec.is_discrete:
        action = np.eye(spec.action_size, dtype=np.float32)[action]
    is_last = np.arange(number) == number - 1
    steps = {
        "observation": episode.observation,
        "previous_action": _after_nothing(action),
        "reward": _after_nothing(episode.reward),
        "is_first": np.arange(number) == 0,
        "is_last": is_last,
        "is_terminal": is_last & episode.is_terminal,
    }
    if spec.image_shape is not None:
        steps["image"] = episode.observation
        steps["observation"] = np.zeros((number, spec.observation_size), np.float32)
    return steps


def _after_nothing(array: np.ndarray) -> np.ndarray:
    """Puts a row of zeros before an array: an episode begins without an action and a reward."""
    return np.concatenate([np.zeros_like(array[:1], shape=(1, *array.shape[1:])), array])


def _no_steps(spec: Spec) -> _Steps:
    if spec.image_shape is not None:
        observation = np.zeros((1, *spec.image_shape), np.uint8)
    else:
        observation = np.zeros((1, spec.observation_size), np.float32)
    action = np.zeros(0, np.int32) if spec.is_discrete else np.zeros((0, spec.action_size), "f4")
    episode = Episode(observation, action, np.zeros(0, np.float32), False, False)
    return {name: array[:0] for name, array in time_steps_of(episode, spec).items()}
