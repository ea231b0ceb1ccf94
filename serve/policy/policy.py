"""A version of the registry as a policy in NumPy, which acts like its JAX policy to 1e-5."""

import numpy as np

from rlcar.agents import algorithm_of
from rlcar.agents.numpy_network import Arrays, State
from rlcar.config import Config, parse_config
from rlcar.config.schema import safe_action
from rlcar.errors import RegistryError
from rlcar.registry import Model, Registry, Version
from rlcar.registry.architecture import what_is_not_numeric

_TRIAL_STEPS, _TRIAL_CARS = 8, 4
BATCH_SIZES = (1, 64, 256)  # in cars; the last is the maximum of one request
WARM_STEPS = 5
_LARGEST_TRIED = 1e3  # of the numbers that a new policy is tried with


class NumpyPolicy:
    """Acts without exploring; holds no state of a car, so one object serves all of them.

    The state of cars is a tuple of float32 arrays, each with a leading batch axis.
    """

    def __init__(self, version: Version, config: Config, arrays: Arrays):
        self.version, self.config = version, config
        self.observation_size = len(version.metadata["observation"])
        self.action_size = len(version.metadata["action"])
        self.safe_action = safe_action(version.metadata)  # [A], where the policy cannot act
        with np.errstate(all="ignore"):  # `act` detects an overflow
            self._network = algorithm_of(config).make_numpy_network(
                config.algorithm_settings, arrays
            )

    def initial_state(self, batch: int) -> State:
        """Returns the state of cars before their first observation."""
        return tuple(np.zeros((batch, width), np.float32) for width in self._network.widths)

    def act(
        self, state: State, observation: np.ndarray, is_first: np.ndarray
    ) -> tuple[np.ndarray, State]:
        """Maps observations `[B, F]` float32 to actions `[B, A]` in [-1, 1] and the next state.

        Where `is_first [B]` bool is set, an episode begins and the state is reset. Raises
        FloatingPointError if an observation or an action is not finite.
        """
        # A latent state is one-hot even if it is inferred from a NaN, and would hide it.
        if not np.isfinite(observation).all():
            raise FloatingPointError("an observation contains a number that is not finite")
        with np.errstate(all="ignore"):
            action, state = self._network.step(state, observation, is_first)
        if not np.isfinite(action).all():
            raise FloatingPointError(
                f"version {self.version.number} answers {observation[:1].tolist()} with a number "
                "that is not finite"
            )
        return action, state

    def latent(self, state: State) -> np.ndarray | None:
        """Returns the world model's latent state `[B, S, K]`, one-hot; None without a model."""
        shape = self._network.latent_shape
        return None if shape is None else state[1].reshape(-1, *shape)


def load_policy(registry: Registry, version: str | int = "champion") -> NumpyPolicy:
    """Loads a version by number or alias, verifies its files and runs it for a few steps.

    Raises RegistryError if it is absent or damaged, or acts on images or with discrete actions.
    """
    return make_policy(registry.open(version))


def make_policy(model: Model) -> NumpyPolicy:
    """Builds the policy of a model and runs it for a few steps on random observations.

    Raises RegistryError if it acts on images, with discrete actions, or with numbers that are not
    finite.
    """
    number = model.version.number
    config = parse_config(model.version.metadata["config"])
    reason = what_is_not_numeric(model.version.metadata, model.arrays, config)
    if reason is not None:
        raise RegistryError(
            f"version {number} acts in {config.world_label} {reason}: only policies with numeric "
            "observations and continuous actions can be served"
        )
    policy = NumpyPolicy(model.version, config, model.arrays)
    rng, state = np.random.default_rng(0), policy.initial_state(_TRIAL_CARS)
    is_first = np.ones(_TRIAL_CARS, bool)
    try:
        for _ in range(_TRIAL_STEPS):
            observation = rng.random((_TRIAL_CARS, policy.observation_size), np.float32)
            _, state = policy.act(state, observation, is_first)
            is_first = np.zeros(_TRIAL_CARS, bool)
    except FloatingPointError as error:
        raise RegistryError(f"{error}: it cannot be served") from None
    return policy


def try_model(model: Model) -> None:
    """Runs a server's checks of a new model; raises RegistryError if one fails."""
    policy = make_policy(model)
    try:
        for cars in BATCH_SIZES:
            observation, state = observations_over_range(policy, cars), policy.initial_state(cars)
            for step in range(WARM_STEPS):
                _, state = policy.act(state, observation, np.full(cars, step == 0))
    except FloatingPointError as error:
        raise RegistryError(f"{error}: it cannot be served") from None


def observations_over_range(policy: NumpyPolicy, cars: int) -> np.ndarray:
    """Returns observations `[cars, F]` from the lowest values of the range to the highest."""
    schema = policy.version.metadata["observation"]
    low, high = (
        np.array([default if entry[end] is None else entry[end] for entry in schema]).clip(
            -_LARGEST_TRIED, _LARGEST_TRIED
        )
        for end, default in (("low", -1.0), ("high", 1.0))
    )
    mix = np.linspace(0.0, 1.0, cars, dtype=np.float32)[:, None]
    return (low + mix * (high - low)).astype(np.float32)
