"""Records the data sets of the offline benchmarks: drivers that err, and half-trained policies.

The error of a hand-written driver is an autoregressive process of first order, as that of a person
who corrects too late, and each car has its own amount of it. Errors that are independent from step
to step, as those of `rlcar data record`, average out within a few steps: behavioural cloning
removes them.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlcar.agents import make_agent
from rlcar.config import make_config
from rlcar.config.race import RaceConfig
from rlcar.datasets import Dataset, DatasetWriter, World
from rlcar.datasets.behaviour import Behaviour
from rlcar.datasets.description import Source, describe
from rlcar.datasets.recording import RaceRecorder, cars_for, record
from rlcar.datasets.writer import new_folder
from rlcar.evaluation.drivers import DRIVERS, REFERENCE, make_reference
from rlcar.evaluation.run_report import load_policy
from rlcar.sim import SPEC
from rlcar.storage import checkpoint
from rlcar.system.provenance import provenance
from rlcar.track import TRACK_SETS
from rlcar.training.loop import train
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


class HalfTrained(NamedTuple):
    """The world model's policy early in its training, which explores while it is recorded."""

    seed: int
    env_steps: int = 10_240
    share: float = 1.0

    @property
    def label(self) -> str:
        return f"seed {self.seed} after {self.env_steps:,} env steps"


Driver = NoisyDriver | HalfTrained


def trained(driver: HalfTrained, race: RaceConfig, runs: Path, *, explores: bool) -> Policy:
    """Returns the policy, with its parameters in it; trains it if that has not been done yet."""
    config = make_config(preset="nano-grand-prix", world="grand-prix", seed=driver.seed)
    if config.race != race:
        raise ValueError("half-trained policies drive the grand prix")
    steps = {"env_steps": driver.env_steps, "evaluate_every_env_steps": 2048}
    training = config.training.model_copy(update=steps)
    config = config.model_copy(update={"training": training})
    folder = runs / f"seed-{driver.seed}"
    save = checkpoint.latest_sound(folder / "checkpoints")
    if save is None or save.env_steps < driver.env_steps:
        folder.mkdir(parents=True, exist_ok=True)
        train(config, folder, save)
    agent = make_agent(config, SPEC)
    _, params = load_policy(folder, folder, agent, driver.seed)

    def act(_: Any, carry: Any, time_step: Any, key: Array, explore: bool) -> tuple[Any, Array]:
        return agent.policy.act(params, carry, time_step, key, explores)

    return agent.policy._replace(act=act)


def plain(driver: Driver, race: RaceConfig, track_seeds: Sequence[int], runs: Path) -> Policy:
    """Returns a driver without an error, or a policy that does not explore."""
    if isinstance(driver, HalfTrained):
        return trained(driver, race, runs, explores=False)
    if driver.name == REFERENCE:
        return make_reference(tuple(track_seeds), race)
    return DRIVERS[driver.name]


def as_recorded(driver: Driver, race: RaceConfig, track_seeds: Sequence[int], runs: Path) -> Policy:
    """Returns a driver with its error, which is in its carry, or a policy that explores."""
    if isinstance(driver, HalfTrained):
        return trained(driver, race, runs, explores=True)
    without = plain(driver, race, track_seeds, runs)
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


def runs_beside(folder: Path) -> Path:
    """Returns where the runs of half-trained policies are, for the folder of a data set."""
    return folder.parent / "drivers"


def record_drivers(
    folder: Path, race: RaceConfig, drivers: Sequence[Driver], transitions: int, seed: int
) -> Dataset:
    """Records drivers by their shares; the log-probabilities of their actions are unknown.

    The runs of half-trained policies lie beside the data set.
    """
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
            [Behaviour(one.label, as_recorded(one, race, TRACKS, runs_beside(folder)), None,
                       share=one.share) for one in drivers],
            lambda behaviour, cars, lane_seed: RaceRecorder(
                race, TRACKS, behaviour, cars, lane_seed
            ),
            transitions=transitions,
            cars=cars_for(transitions, None, True),
            seed=seed,
        )  # fmt: skip
    return Dataset.open(folder)
