"""Behaviour policies: what drives during a recording, and how probable each action was."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jax.scipy.stats import norm

from rlcar.errors import DatasetError
from rlcar.types import Array, Params, Policy, Spec, TimeStep

_LARGEST_NOISE = 10.0
_NUMBER = r"((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?)"
_NOISE = re.compile(f"{_NUMBER}(?:-{_NUMBER})?")
RANDOM = "random"


class Noise(NamedTuple):
    """How far a behaviour departs from its policy.

    Each car has its own amount, from `low` to `high` in equal steps. It is the standard deviation
    of a normal distribution that is truncated to the range of the actions; for discrete actions it
    is the probability of choosing any of them uniformly.
    """

    low: float = 0.0
    high: float = 0.0
    # True: the policy explores as in training instead; the log-probabilities are then unknown.
    is_own: bool = False


class Behaviour(NamedTuple):
    """One policy of a recording, with its noise and its share of the transitions."""

    name: str  # stored with each episode
    policy: Policy
    params: Params
    noise: Noise = Noise()
    share: float = 1.0

    @property
    def knows_log_probability(self) -> bool:
        """Whether each action has a density: there is noise, and it is ours."""
        return not self.noise.is_own and self.noise.low > 0

    def amounts(self, cars: int) -> np.ndarray:
        """Returns the amount of noise of each car, `[N]` float32."""
        return np.linspace(self.noise.low, self.noise.high, cars, dtype=np.float32)


# (params, carry, time step, key, [view]) -> (carry, action [N, A], log-probability [N])
Act = Callable[..., tuple[Any, Array, Array]]


def make_act(behaviour: Behaviour, spec: Spec, cars: int) -> Act:
    """Returns the function that chooses the actions of N cars; the key is consumed.

    Actions are in [-1, 1], or one-hot. The log-probability is 0 where it has no meaning.
    """
    amount = jnp.asarray(behaviour.amounts(cars))

    def act(
        params: Params, carry: Any, time_step: TimeStep, key: Array, *view: Any
    ) -> tuple[Any, Array, Array]:
        act_key, noise_key = jax.random.split(key)
        carry, action = behaviour.policy.act(
            params, carry, time_step, act_key, behaviour.noise.is_own, *view
        )
        if not spec.is_discrete:
            action = jnp.clip(action.astype(jnp.float32), -1.0, 1.0)
        if not behaviour.knows_log_probability:
            return carry, action, jnp.zeros(cars, jnp.float32)
        with_noise = _some_random_choices if spec.is_discrete else truncated_normal
        action, logp = with_noise(action, amount, noise_key)
        if behaviour.policy.with_action is not None:  # The policy remembers what was done.
            carry = behaviour.policy.with_action(carry, action)
        return carry, action, logp

    return act


def random_policy(spec: Spec) -> Policy:
    """Returns the policy whose actions are uniform; give it `noise_of_random(spec)`."""

    def act(
        params: Any, carry: Any, time_step: TimeStep, key: Array, explore: bool
    ) -> tuple[Any, Array]:
        cars = time_step.reward.shape[0]
        if spec.is_discrete:
            choice = jax.random.randint(key, (cars,), 0, spec.action_size)
            return carry, jax.nn.one_hot(choice, spec.action_size)
        return carry, jnp.zeros((cars, spec.action_size))

    return Policy(lambda number: None, act)


def noise_of_random(spec: Spec) -> Noise:
    """Returns the noise that makes `random_policy` uniform and gives it log-probabilities."""
    # The density of a normal distribution of this width varies by less than 1e-4 between -1 and 1.
    # With a larger one, float32 would leave few distinct actions.
    return Noise(1.0, 1.0) if spec.is_discrete else Noise(_UNIFORM, _UNIFORM)


_UNIFORM = 1e2


def parse_noise(text: str, what: str) -> Noise:
    """Parses `0.3`, `0.1-0.4` or `explore`; raises DatasetError that quotes `what`."""
    if text == "explore":
        return Noise(is_own=True)
    match = _NOISE.fullmatch(text)
    low, high = (float(match[1]), float(match[2] or match[1])) if match else (0.0, 0.0)
    if not 0 < low <= high <= _LARGEST_NOISE:
        raise DatasetError(
            f"{what}: the noise {text!r} must be a number from 0 (exclusive) to "
            f"{_LARGEST_NOISE:g}, a range such as 0.1-0.4, or explore"
        )
    return Noise(low, high)


def truncated_normal(mean: Array, amount: Array, key: Array) -> tuple[Array, Array]:
    """Draws from normal distributions that are truncated to [-1, 1]; the key is consumed.

    Returns the actions `[N, A]` and their log-probabilities `[N]`, given means `[N, A]` and
    standard deviations `[N]`.
    """
    deviation = amount[:, None]
    low, high = norm.cdf((-1.0 - mean) / deviation), norm.cdf((1.0 - mean) / deviation)
    share = jax.random.uniform(key, mean.shape)
    drawn = mean + deviation * ndtri(low + share * (high - low))
    action = jnp.clip(drawn, -1.0, 1.0)  # only rounding exceeds the bounds
    density = norm.logpdf((action - mean) / deviation) - jnp.log(deviation * (high - low))
    return action, density.sum(axis=1)


def _some_random_choices(action: Array, amount: Array, key: Array) -> tuple[Array, Array]:
    """Replaces one-hot actions `[N, A]` by uniform choices with the given probabilities `[N]`."""
    cars, size = action.shape
    choice_key, chance_key = jax.random.split(key)
    amount = jnp.minimum(amount, 1.0)
    random = jax.nn.one_hot(jax.random.randint(choice_key, (cars,), 0, size), size)
    is_random = jax.random.uniform(chance_key, (cars,)) < amount
    greedy = jax.nn.one_hot(action.argmax(axis=1), size)
    chosen = jnp.where(is_random[:, None], random, greedy)
    is_greedy = (chosen * greedy).sum(axis=1)
    return chosen, jnp.log(amount / size + (1.0 - amount) * is_greedy)
