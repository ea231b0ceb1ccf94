"""The policy in NumPy acts like the one in JAX, over whole races."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcar.agents import ALGORITHMS, make_agent
from rlcar.agents.normaliser import Moments, normalise
from rlcar.config import Config, make_config
from rlcar.config.schema import (
    SAFE_ACTION_OF_RACE,
    is_same_schema,
    safe_action,
    schema_of_race,
)
from rlcar.errors import RegistryError
from rlcar.registry import NORMALISER, Registry
from rlcar.registry.architecture import policy_shapes
from rlcar.sim import SPEC, make_race
from rlcar.storage.arrays import flatten
from rlcar.track import make_pool
from rlcar.types import Spec, TimeStep
from serve.api.schema import SAFE_ACTION
from serve.policy.policy import load_policy, make_policy
from tests.support.trained_like import model_of, trained_like
from tests.support.untrained_run import write_run

CARS, STEPS = 4, 400
PRESETS = (
    *(algorithm.default_preset for algorithm in ALGORITHMS.values()),
    "small",
    "recurrent-ppo",
)
_WITHOUT_MEMORY = "dreamer.world_model.has_memory=false"
CONFIGS = {
    **{preset: make_config(preset) for preset in PRESETS},
    "no-memory": make_config("nano", overrides=[_WITHOUT_MEMORY]),
}


@pytest.fixture(scope="module")
def race():
    """Short races of CARS cars, compiled once for all policies."""
    rules = make_config().race.model_copy(update={"time_limit_steps": 150})
    race = make_race(rules, make_pool(range(CARS), rules.track))
    return race._replace(step=jax.jit(race.step))


def _races(race: Any, config: Config, params: Any) -> Iterator[tuple[Any, np.ndarray, Any]]:
    """Observations, actions and states of CARS cars; a new race begins when one ends."""
    policy = make_agent(config, SPEC).policy
    act = jax.jit(policy.act, static_argnums=4)
    state, time_step = race.reset(jnp.arange(CARS, dtype=jnp.int32), 0)
    memory = policy.initial(CARS)
    for _ in range(STEPS):
        memory, action = act(params, memory, time_step, jax.random.key(0), False)
        yield time_step, np.asarray(action), getattr(memory, "state", None)
        # Always accelerates: policies with random parameters tend to stand still.
        forward = np.abs(action) * [0, 1] + np.asarray(action) * [1, 0]
        state, time_step, _ = race.step(state, forward.astype(np.float32))


@pytest.mark.parametrize("name", CONFIGS)
def test_numpy_acts_like_jax_over_whole_races(name, race):
    config = CONFIGS[name]
    params = trained_like(config)
    policy = make_policy(model_of(config, params))
    state, starts, actions = policy.initial_state(CARS), 0, []
    for time_step, wanted, belief in _races(race, config, params):
        is_first = np.asarray(time_step.is_first)
        action, state = policy.act(state, np.asarray(time_step.observation), is_first)
        np.testing.assert_allclose(action, np.clip(wanted, -1.0, 1.0), rtol=0, atol=1e-5)
        latent = policy.latent(state)
        if latent is not None:
            np.testing.assert_array_equal(latent.reshape(CARS, -1), belief.latent)
        starts += is_first.sum()
        actions.append(action)
    assert starts > 2 * CARS
    assert np.ptp(actions) > 0.5


@pytest.mark.parametrize("name", CONFIGS)
def test_the_arrays_of_a_policy_are_those_that_its_config_implies(name):
    config = CONFIGS[name]
    shapes = {key: array.shape for key, array in flatten(trained_like(config)).items()}
    assert shapes == policy_shapes(config, SPEC)


def test_the_normaliser_is_that_of_training():
    moments = Moments(jnp.zeros(2), jnp.array([0.0, 1.0]), jnp.asarray(1.0))
    scaled = normalise(moments, jnp.array([[1e-4, 1e9]]))
    wanted = [1e-4 / NORMALISER["epsilon"] ** 0.5, NORMALISER["limit"]]
    np.testing.assert_allclose(scaled[0], wanted, rtol=1e-5)


def test_cars_act_together_as_they_do_apart():
    policy = make_policy(model_of(CONFIGS["nano"], trained_like(CONFIGS["nano"])))
    rng, apart = np.random.default_rng(0), [policy.initial_state(1) for _ in range(3)]
    for step in range(20):
        seen, is_first = rng.random((3, 6), np.float32), np.array([step == 0, step == 7, False])
        stacked = tuple(np.concatenate(parts) for parts in zip(*apart, strict=True))
        together, state = policy.act(stacked, seen, is_first)
        for car, own in enumerate(apart):
            one = slice(car, car + 1)
            action, _ = policy.act(own, seen[one], is_first[one])
            np.testing.assert_allclose(action, together[one], rtol=0, atol=1e-5)
        apart = [tuple(part[car : car + 1] for part in state) for car in range(3)]


def test_actions_stay_in_range_whatever_is_seen():
    rng = np.random.default_rng(1)
    for config in CONFIGS.values():
        policy = make_policy(model_of(config, trained_like(config)))
        state = policy.initial_state(64)
        for scale in (0.0, 1e-30, 1.0, 1e3, 1e6):
            seen = (rng.normal(size=(64, 6)) * scale).astype(np.float32)
            action, state = policy.act(state, seen, np.zeros(64, bool))
            assert action.dtype == np.float32
            assert np.abs(action).max() <= 1.0
        with pytest.raises(FloatingPointError, match="not finite"):
            policy.act(state, np.full((64, 6), np.nan, np.float32), np.zeros(64, bool))


def test_a_model_that_overflows_is_refused_before_it_drives():
    params = trained_like(CONFIGS["td3"])
    huge = jax.tree.map(lambda leaf: leaf * np.float32(1e37), params)
    with pytest.raises(RegistryError, match="cannot be served"):
        make_policy(model_of(CONFIGS["td3"], huge))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_policy_of_another_environment_acts_as_in_training(name):
    """Pendulum has three numbers to observe, one of them up to 8, and one to act with."""
    algorithm = ALGORITHMS[name]
    preset = algorithm.gymnasium_preset or algorithm.default_preset
    config = make_config(preset, "test", environment="Pendulum-v1")
    spec = Spec(observation_size=3, action_size=1)
    params = trained_like(config, spec=spec)
    policy = make_policy(model_of(config, params, spec))
    assert (policy.observation_size, policy.safe_action) == (3, (0.0,))
    jax_policy, rng = make_agent(config, spec).policy, np.random.default_rng(2)
    memory, state = jax_policy.initial(CARS), policy.initial_state(CARS)
    act = jax.jit(jax_policy.act, static_argnums=4)
    for step in range(40):
        seen = (8.0 * rng.normal(size=(CARS, 3))).astype(np.float32)
        is_first = np.full(CARS, step == 0) | (np.arange(CARS) == step)
        nothing = np.zeros(CARS, bool)
        time_step = TimeStep(seen, np.zeros(CARS, np.float32), is_first, nothing, nothing)
        memory, wanted = act(params, memory, time_step, jax.random.key(0), False)
        action, state = policy.act(state, seen, is_first)
        np.testing.assert_allclose(action, np.clip(wanted, -1.0, 1.0), rtol=0, atol=1e-5)
        assert action.shape == (CARS, 1)


def test_a_policy_with_discrete_actions_is_published_but_not_served(tmp_path):
    config = make_config("ppo", "test", environment="CartPole-v1")
    registry = Registry(tmp_path / "models")
    version = registry.publish(write_run(tmp_path / "pole", config))
    assert [entry["high"] for entry in version.metadata["action"]] == [1.0] * 2
    with pytest.raises(RegistryError, match=r"acts in CartPole-v1 with 2 discrete actions: only"):
        load_policy(registry, 1)


def test_the_safe_action_is_what_a_version_says_or_else_zeros():
    config = make_config("td3", "test", environment="Pendulum-v1")
    action = [{"name": "throttle", "unit": "", "low": -1.0, "high": 1.0, "safe": -1.0}]
    action.append({"name": "gimbal", "unit": "", "low": -1.0, "high": 1.0})
    metadata = {"config": config.model_dump(), "action": action}
    assert safe_action(metadata) == (-1.0, 0.0)
    assert safe_action(metadata | {"action": action[1:]}) == (0.0,)
    race = {"config": make_config().model_dump(), "action": action[1:] * 2}
    assert safe_action(race) == SAFE_ACTION == SAFE_ACTION_OF_RACE


def test_versions_from_before_the_safe_action_have_the_same_schema_as_newer_ones():
    _, action = schema_of_race(make_config())
    older = [{key: entry[key] for key in ("name", "unit", "low", "high")} for entry in action]
    assert [entry["safe"] for entry in action] == [0.0, -1.0]
    assert is_same_schema(action, older)
    assert not is_same_schema(action, [older[0], older[1] | {"high": 2.0}])


def test_a_policy_that_sees_images_is_refused():
    config = make_config(environment="rlcar/Catch-v0")
    with pytest.raises(
        RegistryError, match=r"acts in rlcar/Catch-v0 .*: only policies with numeric"
    ):
        make_policy(model_of(config, {}))


def test_a_version_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(RegistryError, match="no alias 'champion'"):
        load_policy(Registry(tmp_path))
