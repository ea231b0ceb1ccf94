"""Records the data sets of the offline benchmarks: hand-written drivers that err persistently.

The error of a driver is an autoregressive process of first order, as that of a person who corrects
too late, and each car has its own amount of it. Errors that are independent from step to step, as
those of `rlcar data record`, average out within a few steps: behavioural cloning removes them.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlcar.config.race import RaceConfig
from rlcar.datasets import Dataset, DatasetWriter, World
from rlcar.datasets.behaviour import Behaviour
from rlcar.datasets.description import Source, describe
from rlcar.datasets.recording import RaceRecorder, cars_for, record
from rlcar.datasets.writer import new_folder
from rlcar.evaluation.drivers import DRIVERS, REFERENCE, make_reference
from rlcar.sim import SPEC
from rlcar.system.provenance import provenance
from rlcar.track import TRACK_SETS
from rlcar.types import Array, Policy

# Of the training set. More need more memory, and their racing lines take minutes.
TRACKS = tuple(TRACK_SETS["train"])[:512]


class NoisyDriver(NamedTuple):
    """A hand-written driver with a persistent error."""

    name: str
    low: float  # standard deviation of the error of the first car
    high: float  # and of the last one; those between have equal steps
    persistence: float = 0.9  # correlation of the error with that of the step before
    share: float = 1.0

    @property
    def label(self) -> str:
        return f"{self.name}@{self.low:g}-{self.high:g}"


def plain(name: str, race: RaceConfig, track_seeds: Sequence[int]) -> Policy:
    """Returns a hand-written driver without an error."""
    return make_reference(tuple(track_seeds), race) if name == REFERENCE else DRIVERS[name]


def noisy(driver: NoisyDriver, race: RaceConfig, track_seeds: Sequence[int]) -> Policy:
    """Returns the driver with its error, which is in its carry."""
    without = plain(driver.name, race, track_seeds)
    fresh = math.sqrt(1.0 - driver.persistence**2)

    def initial(number: int) -> Any:
        return without.initial(number), jnp.zeros((number, SPEC.action_size), jnp.float32)

    def act(
        params: Any, carry: Any, time_step: Any, key: Array, explore: bool, *view: Any
    ) -> tuple[Any, Array]:
        inner, error = carry
        act_key, noise_key = jax.random.split(key)
        inner, action = without.act(params, inner, time_step, act_key, explore, *view)
        amount = jnp.linspace(driver.low, driver.high, error.shape[0])[:, None]
        drawn = amount * jax.random.normal(noise_key, error.shape)
        # A new episode begins with an error of the same size.
        going_on = driver.persistence * error + fresh * drawn
        error = jnp.where(time_step.is_first[:, None], drawn, going_on)
        return (inner, error), jnp.clip(action + error, -1.0, 1.0)

    return Policy(initial, act, uses_car_view=without.uses_car_view)


def record_drivers(
    folder: Path, race: RaceConfig, drivers: Sequence[NoisyDriver], transitions: int, seed: int
) -> Dataset:
    """Records drivers by their shares; the log-probabilities of their actions are unknown."""
    about = {
        "drivers": [str(driver) for driver in drivers],
        "seed": seed,
        "commit": provenance(seed)["commit"],
    }
    source = Source(kind="recording", about=about)
    description = describe(World(race=race), SPEC)
    with (
        new_folder(folder) as temporary,
        DatasetWriter(temporary, description, source) as writer,
    ):
        record(
            writer,
            [Behaviour(one.label, noisy(one, race, TRACKS), None, share=one.share)
             for one in drivers],
            lambda behaviour, cars, lane_seed: RaceRecorder(
                race, TRACKS, behaviour, cars, lane_seed
            ),
            transitions=transitions,
            cars=cars_for(transitions, None, True),
            seed=seed,
        )  # fmt: skip
    return Dataset.open(folder)
