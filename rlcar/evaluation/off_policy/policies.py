"""Policies, and the actions that they choose for recorded observations."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlcar.config import Config
from rlcar.datasets import Dataset
from rlcar.datasets.description import sizes
from rlcar.envs.schema import schema_of
from rlcar.errors import DatasetError
from rlcar.evaluation.drivers import DRIVERS
from rlcar.evaluation.environment import spec_of
from rlcar.evaluation.off_policy.logged import Logged
from rlcar.types import Params, Policy, TimeStep

_ROWS = 8_192  # observations that a policy without memory answers at a time
_EPISODES = 128  # episodes that a policy with memory follows side by side


class NamedPolicy(NamedTuple):
    """A policy with its parameters, as the report calls it."""

    name: str
    policy: Policy
    params: Params


class PolicyActions(NamedTuple):
    """What a policy does without exploration in each recorded state."""

    action: np.ndarray  # [M, A] float32 at the observation of each row
    next_action: np.ndarray  # [M, A] float32 at the next observation of each row


def learned_policy(
    name: str, config: Config, policy: Policy, params: Params, dataset: Dataset
) -> NamedPolicy:
    """Names a learned policy; raises DatasetError if it acts on other observations or actions."""
    require_same_schema(name, config, dataset)
    return NamedPolicy(name, policy, params)


def policy_of_driver(name: str, dataset: Dataset) -> NamedPolicy:
    """Returns a hand-written driver of the race; raises DatasetError for other worlds."""
    if dataset.world.race is None:
        raise DatasetError(
            f"the driver {name} drives the race, and {dataset.folder} was recorded in "
            f"{dataset.world.label}: name a run or a published version"
        )
    return NamedPolicy(name, DRIVERS[name], None)


def require_same_schema(name: str, config: Config, dataset: Dataset) -> None:
    """Raises DatasetError if a policy was trained on other observations or actions."""
    if config.is_race != (dataset.world.race is not None):
        raise DatasetError(
            f"{name} was trained in {config.world_label}, and {dataset.folder} was recorded in "
            f"{dataset.world.label}: name a policy of the same world"
        )
    recorded = dataset.world.environment
    if recorded is not None and config.environment.id not in ("", recorded.id):
        raise DatasetError(
            f"{name} was trained in {config.world_label}, and {dataset.folder} was recorded in "
            f"{dataset.world.label}: name a policy of the same world"
        )
    spec = spec_of(config)
    if spec != dataset.spec:
        raise DatasetError(
            f"{name} acts on {sizes(spec)}, and {dataset.folder} has {sizes(dataset.spec)}: name a "
            "policy of the same world"
        )
    observation, _ = schema_of(config, spec)
    theirs = [(entry["name"], entry["unit"]) for entry in observation]
    ours = [(entry.name, entry.unit) for entry in dataset.description.observation]
    different = next((pair for pair in zip(theirs, ours, strict=True) if pair[0] != pair[1]), None)
    if different is not None:
        (their_name, their_unit), (our_name, our_unit) = different
        raise DatasetError(
            f"{name} was trained on {their_name} in units of {their_unit}, and {dataset.folder} "
            f"has {our_name} in units of {our_unit}: name a policy of the same world"
        )


def actions_of(named: NamedPolicy, logged: Logged) -> PolicyActions:
    """Lets a policy answer to every recorded observation.

    A policy with memory follows each episode from its start. It sees the recorded observations,
    and remembers the recorded actions as its own, if it can. Raises DatasetError for parameters or
    answers that are not finite numbers.
    """
    # The largest of several NaN is an action like any other, so the answers alone do not tell.
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(named.params)):
        raise DatasetError(
            f"the parameters of {named.name} are not all finite: name an earlier checkpoint of it"
        )
    with jax.debug_nans(False):
        has_memory = bool(jax.tree.leaves(jax.eval_shape(lambda: named.policy.initial(1))))
        actions = _replayed(named, logged) if has_memory else _answered(named, logged)
    if not all(np.isfinite(array).all() for array in actions):
        raise DatasetError(f"{named.name} answers to the data with a number that is not finite")
    return actions


def _answered(named: NamedPolicy, logged: Logged) -> PolicyActions:
    """Asks a policy without memory; it answers to the rows in any order."""
    act = jax.jit(_step(named.policy))
    carry = named.policy.initial(_ROWS)

    def ask(observation: np.ndarray) -> np.ndarray:
        parts = []
        for first in range(0, len(observation), _ROWS):
            rows = observation[first : first + _ROWS]
            padded = np.zeros((_ROWS, observation.shape[1]), np.float32)
            padded[: len(rows)] = rows
            _, action = act(named.params, carry, padded, np.ones(_ROWS, bool))
            parts.append(np.asarray(action)[: len(rows)])
        return np.concatenate(parts)

    # Except after the last action of an episode, the next observation is that of the next row.
    action = ask(logged.observation)
    last = logged.bounds[1:] - 1
    following = np.roll(action, -1, axis=0)
    following[last] = ask(logged.next_observation[last])
    return PolicyActions(action, following)


def _replayed(named: NamedPolicy, logged: Logged) -> PolicyActions:
    """Lets a policy with memory follow the episodes, the shortest ones first."""
    length = np.diff(logged.bounds)
    action = np.zeros_like(logged.action)
    following = np.zeros_like(logged.action)
    order = np.argsort(length, kind="stable")
    follow = jax.jit(lambda params, *arrays: _follow(named.policy, params, *arrays))
    for first in range(0, len(order), _EPISODES):
        chosen = order[first : first + _EPISODES]
        # Lengths in powers of two limit the number of programs that are compiled.
        steps = 1 << int(length[chosen].max()).bit_length()
        observation = np.zeros((steps, _EPISODES, logged.observation.shape[1]), np.float32)
        taken = np.zeros((steps, _EPISODES, logged.action.shape[1]), np.float32)
        for column, episode in enumerate(chosen):
            rows = slice(logged.bounds[episode], logged.bounds[episode + 1])
            observation[: length[episode], column] = logged.observation[rows]
            observation[length[episode], column] = logged.next_observation[rows.stop - 1]
            taken[: length[episode], column] = logged.action[rows]
        answers = np.asarray(follow(named.params, observation, taken))
        for column, episode in enumerate(chosen):
            rows = slice(logged.bounds[episode], logged.bounds[episode + 1])
            action[rows] = answers[: length[episode], column]
            following[rows] = answers[1 : length[episode] + 1, column]
    return PolicyActions(action, following)


def _follow(policy: Policy, params: Params, observation: Any, taken: Any) -> jax.Array:
    """Returns the actions `[T, N, A]` for observations `[T, N, O]` of N episodes from the start."""
    act = _step(policy)
    is_first = jnp.zeros(observation.shape[:2], bool).at[0].set(True)

    def step(carry: Any, row: tuple[Any, Any, Any]) -> tuple[Any, Any]:
        observation, taken, is_first = row
        carry, action = act(params, carry, observation, is_first)
        if policy.with_action is not None:
            carry = policy.with_action(carry, taken)
        return carry, action

    start = policy.initial(observation.shape[1])
    return jax.lax.scan(step, start, (observation, taken, is_first))[1]


def _step(policy: Policy) -> Any:
    """Returns `(params, carry, observation, is_first) -> (carry, action)` without exploration."""

    def step(params: Params, carry: Any, observation: Any, is_first: Any) -> tuple[Any, jax.Array]:
        none = jnp.zeros(observation.shape[0], bool)
        reward = jnp.zeros(observation.shape[0], jnp.float32)
        now = TimeStep(jnp.asarray(observation), reward, jnp.asarray(is_first), none, none)
        carry, action = policy.act(params, carry, now, jax.random.key(0), False)
        return carry, jnp.clip(action, -1.0, 1.0).astype(jnp.float32)

    return step
