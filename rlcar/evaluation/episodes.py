"""Drives one episode of a compiled environment for each index, without exploration."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from rlcar.system import heartbeat
from rlcar.types import Array, CompiledEnvironment, Params, Policy

# Indices below the first one belong to training, so that no other seed repeats these episodes.
EVALUATION_INDEX = 2**30  # of evaluations while training, which choose the best policy
TEST_INDEX = 2**30 + 2**24  # of reports, which see other episodes than that choice
_SEED = 0
_CHUNK = 50  # steps in one compiled call
_MOST_STEPS = 100_000  # some environments may never end


class EpisodeResults(NamedTuple):
    """The results of N episodes."""

    reward: Array  # [N], sum over the episode
    steps: Array  # [N] int32
    reason: Array  # [N] int32, index into `CompiledEnvironment.reasons`
    is_success: Array  # [N] bool
    figures: dict[str, Array]  # [N] each, of the end of the episode
    # [T, N] each, before every step; NaN after the end of an episode. Empty if not asked for.
    view: dict[str, Array]


class Drive(Protocol):
    """Drives `episodes` episodes side by side, from the index `first_index` on.

    Returns None as soon as `should_stop` returns True, and calls `on_share` with the share of
    episodes that have ended.
    """

    def __call__(
        self,
        params: Params,
        episodes: int,
        first_index: int,
        *,
        should_stop: Callable[[], bool] = lambda: False,
        on_share: Callable[[float], None] = lambda share: None,
    ) -> EpisodeResults | None: ...


class _State(NamedTuple):
    environment: Any
    time_step: Any
    policy: Any
    key: Array
    is_done: Array  # [N] bool
    results: EpisodeResults  # of JAX arrays, without views


def make_episodes(
    environment: CompiledEnvironment,
    policy: Policy,
    view: Callable[[Any], dict[str, Array]] | None = None,
) -> Drive:
    """Makes the function that drives episodes; `view` selects what is kept of every state."""

    @jax.jit
    def advance(params: Params, state: _State) -> tuple[_State, dict[str, Array]]:
        def step(state: _State, _: None) -> tuple[_State, dict[str, Array]]:
            seen = {} if view is None else view(state.environment)
            seen = {name: jnp.where(state.is_done, jnp.nan, x) for name, x in seen.items()}
            return _step(environment, policy, params, state), seen

        return jax.lax.scan(step, state, None, length=_CHUNK)

    def drive(
        params: Params,
        episodes: int,
        first_index: int,
        *,
        should_stop: Callable[[], bool] = lambda: False,
        on_share: Callable[[float], None] = lambda share: None,
    ) -> EpisodeResults | None:
        index = np.arange(first_index, first_index + episodes, dtype=np.int32)
        # Views are NaN after the end of an episode on purpose.
        with jax.debug_nans(False), heartbeat.stage("evaluating"):
            state = _start(environment, policy, index)
            views: list[dict[str, np.ndarray]] = []
            for _ in range(_MOST_STEPS // _CHUNK):
                if should_stop():
                    return None
                state, seen = advance(params, state)
                views.append(jax.device_get(seen))
                share = float(np.mean(state.is_done))
                on_share(share)
                if share == 1.0:
                    break
            joined = {name: np.concatenate([x[name] for x in views]) for name in views[0]}
            results: EpisodeResults = jax.device_get(state.results)
            return results._replace(view=joined)

    return drive


def mean_figures(results: EpisodeResults) -> dict[str, float]:
    """Returns the mean of each figure over the successful episodes; nothing without any."""
    if not results.is_success.any():
        return {}
    return {
        name: float(values[results.is_success].mean()) for name, values in results.figures.items()
    }


def _start(environment: CompiledEnvironment, policy: Policy, index: np.ndarray) -> _State:
    state, time_step = jax.tree.map(jnp.asarray, environment.reset(index, _SEED))
    number = len(index)
    zeros = jnp.zeros((number, environment.spec.action_size))
    end = jax.eval_shape(environment.step, state, zeros)[2]
    results = EpisodeResults(
        reward=jnp.zeros(number),
        steps=jnp.zeros(number, jnp.int32),
        reason=jnp.zeros(number, end.reason.dtype),
        is_success=jnp.zeros(number, bool),
        figures={name: jnp.zeros(number) for name in end.figures},
        view={},
    )
    is_done = jnp.zeros(number, bool)
    key = jax.random.PRNGKey(_SEED)
    return _State(state, time_step, policy.initial(number), key, is_done, results)


def _step(
    environment: CompiledEnvironment, policy: Policy, params: Params, state: _State
) -> _State:
    """Drives every environment one step; those that are done go on without any effect."""
    key, act_key = jax.random.split(state.key)
    carry, action = policy.act(params, state.policy, state.time_step, act_key, False)
    environment_state, time_step, end = environment.step(state.environment, action)
    results, is_driving = state.results, ~state.is_done
    results = results._replace(
        reward=results.reward + jnp.where(is_driving, time_step.reward, 0.0),
        steps=results.steps + is_driving,
        reason=jnp.where(is_driving, end.reason, results.reason),
        is_success=jnp.where(is_driving, end.is_success, results.is_success),
        figures={
            name: jnp.where(is_driving, end.figures[name], old)
            for name, old in results.figures.items()
        },
    )
    is_done = state.is_done | time_step.is_last
    return _State(environment_state, time_step, carry, key, is_done, results)
