"""A registry's version as a policy that acts in NumPy, like its JAX policy to 1e-5."""

from collections.abc import Sequence

import numpy as np

from rlcar.agents import algorithm_of
from rlcar.agents.numpy_network import Arrays, State
from rlcar.config import Config, parse_config
from rlcar.errors import RegistryError
from rlcar.registry import Model, Registry, Version

_TRIAL_STEPS, _TRIAL_CARS = 8, 4
BATCH_SIZES = (1, 64, 256)  # in cars: what one request may hold is the last
WARM_STEPS = 5


class NumpyPolicy:
    """Acts without exploring; holds no state of any car, so one serves them all.

    A car's state is a tuple of float32 arrays, each with a leading batch axis: `stack` puts those
    of several cars together and `rows` takes them apart.
    """

    def __init__(self, version: Version, config: Config, arrays: Arrays):
        self.version, self.config = version, config
        self.observation_size = len(version.metadata["observation"])
        self.action_size = len(version.metadata["action"])
        with np.errstate(all="ignore"):  # what overflows is noticed when it acts
            self._network = algorithm_of(config).make_numpy_network(
                config.algorithm_settings, arrays
            )

    def initial_state(self, batch: int) -> State:
        """The state of cars that have seen nothing yet."""
        return tuple(np.zeros((batch, width), np.float32) for width in self._network.widths)

    def act(
        self, state: State, observation: np.ndarray, is_first: np.ndarray
    ) -> tuple[np.ndarray, State]:
        """Maps observations `[B, F]` float32 to actions `[B, 2]` in [-1, 1] and the next state.

        Where `is_first [B]` bool is set, an episode begins and the past is forgotten. Raises
        FloatingPointError for an observation that is not finite, and rather than return a number
        that is not.
        """
        # A latent state is one-hot whatever it is inferred from: it would hide a NaN.
        if not np.isfinite(observation).all():
            raise FloatingPointError("an observation holds a number that is not finite")
        with np.errstate(all="ignore"):
            action, state = self._network.step(state, observation, is_first)
        if not np.isfinite(action).all():
            raise FloatingPointError(
                f"version {self.version.number} answers {observation[:1].tolist()} with a number "
                "that is not finite"
            )
        return action, state

    def latent(self, state: State) -> np.ndarray | None:
        """The world model's latent state `[B, S, K]`, one-hot; None for other algorithms."""
        shape = self._network.latent_shape
        return None if shape is None else state[1].reshape(-1, *shape)


def load_policy(registry: Registry, version: str | int = "champion") -> NumpyPolicy:
    """Loads a version by number or alias, checks every byte and tries it.

    Raises RegistryError when it is absent, damaged, acts on images or not in the race.
    """
    return make_policy(registry.open(version))


def make_policy(model: Model) -> NumpyPolicy:
    """Builds the policy of a model and drives a few steps of noise with it.

    Raises RegistryError for one that acts on images or not in the race, or not with finite numbers.
    """
    number = model.version.number
    config = parse_config(model.version.metadata["config"])
    if not config.is_race:
        raise RegistryError(
            f"version {number} acts in {config.environment.id}: only policies of the race, which "
            "sees numbers, no images, can be served"
        )
    policy = NumpyPolicy(model.version, config, model.arrays)
    rng, state = np.random.default_rng(0), policy.initial_state(_TRIAL_CARS)
    is_first = np.ones(_TRIAL_CARS, bool)
    try:
        for _ in range(_TRIAL_STEPS):
            seen = rng.random((_TRIAL_CARS, policy.observation_size), np.float32)
            _, state = policy.act(state, seen, is_first)
            is_first = np.zeros(_TRIAL_CARS, bool)
    except FloatingPointError as error:
        raise RegistryError(f"{error}: it cannot be served") from None
    return policy


def try_model(model: Model) -> None:
    """Does what a server does before it lets a model act; raises RegistryError if that fails."""
    policy = make_policy(model)
    try:
        for cars in BATCH_SIZES:
            seen, state = observations_over_range(policy, cars), policy.initial_state(cars)
            for turn in range(WARM_STEPS):
                _, state = policy.act(state, seen, np.full(cars, turn == 0))
    except FloatingPointError as error:
        raise RegistryError(f"{error}: it cannot be served") from None


def observations_over_range(policy: NumpyPolicy, cars: int) -> np.ndarray:
    """Returns observations `[cars, F]` from the lowest that the policy may see to the highest."""
    schema = policy.version.metadata["observation"]
    low, high = (
        np.array([free if entry[end] is None else entry[end] for entry in schema], np.float32)
        for end, free in (("low", -1.0), ("high", 1.0))
    )
    mix = np.linspace(0.0, 1.0, cars, dtype=np.float32)[:, None]
    return low + mix * (high - low)


def stack(states: Sequence[State]) -> State:
    """Puts the states of several cars, or groups of them, into one batch."""
    return tuple(np.concatenate(parts) for parts in zip(*states, strict=True))


def rows(state: State, number: int) -> list[State]:
    """Takes a batch of `number` cars apart, one state each."""
    return [tuple(part[index : index + 1] for part in state) for index in range(number)]
