"""Records episodes of behaviour policies in the race or in Gymnasium environments."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from rlcar.config import EnvironmentConfig
from rlcar.config.race import RaceConfig
from rlcar.datasets.behaviour import Behaviour, make_act
from rlcar.datasets.cutting import Block, Cutter
from rlcar.datasets.episode import Episode
from rlcar.datasets.writer import DatasetWriter
from rlcar.envs.vector import make_vector
from rlcar.errors import DatasetError
from rlcar.sim import SPEC, Race, make_race
from rlcar.track import make_pool
from rlcar.types import Spec

_BLOCK_STEPS = 512  # of the race
_ENVIRONMENT_BLOCK_STEPS = 32  # of Gymnasium environments, which may take seconds for a step
# An episode that still runs at the end is finished, so a recording exceeds its target by at most
# one episode of each car. With this many transitions for each car, that is little.
_TRANSITIONS_A_CAR = 4_000
_MOST_CARS, _MOST_ENVIRONMENTS = 256, 8
_FLUSH_S = 300.0  # a process that is killed loses at most what it recorded in this time


class Recorder(Protocol):
    """Drives N environments with one behaviour, block by block."""

    def blocks(self) -> Iterator[Block]:
        """Yields blocks without an end."""

    def close(self) -> None:
        """Releases what the environments hold."""


MakeRecorder = Callable[[Behaviour, int, int], Recorder]  # (behaviour, cars, seed)


def record(
    writer: DatasetWriter,
    behaviours: Sequence[Behaviour],
    make_recorder: MakeRecorder,
    *,
    transitions: int,
    cars: int,
    seed: int,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[int], None] = lambda transitions: None,
) -> None:
    """Records until the data set holds `transitions`, and until the running episodes have ended.

    The behaviours take turns so that each has its share at any time. When `should_stop` returns
    True, the running episodes are recorded as truncated. `on_progress` is called with the number of
    transitions in the data set.
    """
    missing = transitions - writer.transitions
    if missing <= 0:
        return
    total_share = sum(behaviour.share for behaviour in behaviours)
    with contextlib.ExitStack() as stack:
        lanes = []
        for index, behaviour in enumerate(behaviours):
            share = behaviour.share / total_share
            count = max(1, round(cars * share))
            # Hashed, so that the seeds of behaviours and of continued recordings differ.
            words = np.random.SeedSequence([seed, index, writer.transitions]).generate_state(1)
            recorder = make_recorder(behaviour, count, int(words[0] >> 1))
            stack.callback(recorder.close)
            lanes.append(_Lane(behaviour, recorder, count, missing * share))
        flushed_s = time.monotonic()
        while not should_stop() and (waiting := [lane for lane in lanes if not lane.is_done]):
            for episode in min(waiting, key=_Lane.share_done).advance():
                writer.append(episode)
            if time.monotonic() - flushed_s > _FLUSH_S:
                writer.flush()
                flushed_s = time.monotonic()
            on_progress(writer.transitions + sum(lane.running_transitions for lane in lanes))
        for lane in lanes:
            for episode in lane.finish():
                writer.append(episode)


def cars_for(transitions: int, asked: int | None, is_race: bool) -> int:
    """Returns how many environments to record at once, if the user has not chosen."""
    if asked is not None:
        return asked
    return max(
        1, min(transitions // _TRANSITIONS_A_CAR, _MOST_CARS if is_race else _MOST_ENVIRONMENTS)
    )


class _Lane:
    """One behaviour with its environments and its target."""

    def __init__(self, behaviour: Behaviour, recorder: Recorder, cars: int, target: float):
        self._blocks = recorder.blocks()
        self._target = target
        self._cutter = Cutter(
            cars, behaviour.name, knows_log_probability=behaviour.knows_log_probability
        )

    @property
    def is_done(self) -> bool:
        return self._cutter.is_done

    @property
    def running_transitions(self) -> int:
        return self._cutter.running_transitions

    def share_done(self) -> float:
        return (self._cutter.ended_transitions + self.running_transitions) / self._target

    def advance(self) -> Iterator[Episode]:
        yield from self._cutter.add(next(self._blocks))
        if self.share_done() >= 1.0:
            self._cutter.begin_no_more()

    def finish(self) -> Iterator[Episode]:
        yield from self._cutter.finish()


class RaceRecorder:
    """Drives N cars in the vectorized simulator."""

    def __init__(
        self,
        race_config: RaceConfig,
        track_seeds: Sequence[int],
        behaviour: Behaviour,
        cars: int,
        seed: int,
    ):
        pool = make_pool(track_seeds, race_config.track)
        race = make_race(race_config.alone, pool)
        # NumPy gives the same bits as JAX and saves seconds of compiling a program with all tracks.
        car_id = np.arange(cars, dtype=np.int32)
        start = make_race(race_config.alone, pool, np).reset(car_id, seed)
        self._params = behaviour.params
        self._state = (
            *jax.tree.map(jnp.asarray, start),
            behaviour.policy.initial(cars),
            jax.random.PRNGKey(seed),
        )
        self._drive = _make_drive(race, behaviour, cars)

    def blocks(self) -> Iterator[Block]:
        """Yields blocks without an end."""
        while True:
            self._state, block = self._drive(self._params, self._state)
            yield jax.tree.map(np.asarray, block)

    def close(self) -> None:
        """Does nothing, because the race holds no resources."""


def _make_drive(race: Race, behaviour: Behaviour, cars: int) -> Callable[..., tuple[Any, Block]]:
    act = make_act(behaviour, SPEC, cars)

    def drive(params: Any, state: Any) -> tuple[Any, Block]:
        def step(state: Any, _: None) -> tuple[Any, Block]:
            race_state, now, carry, key = state
            key, act_key = jax.random.split(key)
            view = (race.view(race_state),) if behaviour.policy.uses_car_view else ()
            carry, action, logp = act(params, carry, now, act_key, *view)
            race_state, after, _events = race.step(race_state, action)
            ends = now.is_first, now.is_last, now.is_terminal
            block = Block(now.observation, now.reward, *ends, action, logp)
            return (race_state, after, carry, key), block

        return jax.lax.scan(step, state, None, length=_BLOCK_STEPS)

    return jax.jit(drive, donate_argnums=1)


class EnvironmentRecorder:
    """Drives N Gymnasium environments."""

    def __init__(
        self, config: EnvironmentConfig, spec: Spec, behaviour: Behaviour, cars: int, seed: int
    ):
        seeds = np.random.SeedSequence([seed]).generate_state(cars) >> 1
        self._environments = make_vector(config, seeds.tolist())
        self._spec = spec
        self._act = jax.jit(make_act(behaviour, spec, cars))
        self._params = behaviour.params
        self._carry = behaviour.policy.initial(cars)
        self._key = jax.random.PRNGKey(seed)

    def blocks(self) -> Iterator[Block]:
        """Yields blocks without an end."""
        while True:
            with self._environments.driving():
                steps = [self._step() for _ in range(_ENVIRONMENT_BLOCK_STEPS)]
            yield Block(*(np.stack(fields) for fields in zip(*steps, strict=True)))

    def close(self) -> None:
        """Closes the environments."""
        self._environments.close()

    def _step(self) -> Block:
        now = self._environments.now
        self._key, key = jax.random.split(self._key)
        self._carry, action, logp = self._act(self._params, self._carry, now, key)
        action = np.asarray(action)
        self._environments.step(action)
        return Block(
            now.observation if now.image is None else now.image,
            now.reward,
            now.is_first,
            now.is_last,
            now.is_terminal,
            action.argmax(axis=1).astype(np.int32) if self._spec.is_discrete else action,
            np.asarray(logp),
        )


def require_shares(behaviours: Sequence[Behaviour]) -> None:
    """Raises DatasetError if a behaviour has no positive share, or two have the same name."""
    for index, behaviour in enumerate(behaviours):
        if not 0 < behaviour.share < float("inf"):
            raise DatasetError(
                f"{behaviour.name}: the share {behaviour.share:g} must be a positive number"
            )
        if behaviour.name in [other.name for other in behaviours[:index]]:
            raise DatasetError(f"{behaviour.name} is named twice: give it one share")
