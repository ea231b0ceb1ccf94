"""Compiled environments: their settings, their schema, and the checks of published versions."""

import dataclasses

import numpy as np
import pytest

from rlcar.agents import ALGORITHMS
from rlcar.config import make_config
from rlcar.config.schema import ActionEntry, Entry, is_same_schema, safe_action
from rlcar.envs.compiled import COMPILED, compiled_settings, make_compiled
from rlcar.envs.lander.dynamics import HOVER_THROTTLE, throttle_of
from rlcar.envs.schema import known_schema_of, schema_of
from rlcar.envs.single import SingleEnvironment
from rlcar.errors import ConfigError, RegistryError
from rlcar.evaluation.environment import kind_of, require_source
from rlcar.registry.architecture import check_arrays, policy_shapes
from rlcar.types import Spec

LANDER = "rlcar/Lander-v0"


@pytest.mark.parametrize("name", COMPILED)
def test_the_schema_of_a_compiled_environment_has_its_sizes(name):
    config = make_config(environment=name)
    spec = make_compiled(config.environment).spec
    observation, action = schema_of(config, spec)
    assert (len(observation), len(action)) == (spec.observation_size, spec.action_size)
    for entries in (observation, action):
        names = [entry["name"] for entry in entries]
        assert len(set(names)) == len(names)
        assert all(entry["low"] < entry["high"] for entry in entries)
    assert kind_of(config).is_compiled


def test_settings_are_checked_and_a_time_limit_of_the_environment_is_one_of_them():
    def settings(*overrides):
        return compiled_settings(make_config(environment=LANDER, overrides=overrides).environment)

    assert settings().time_limit_steps is None
    assert settings("environment.time_limit_steps=70").time_limit_steps == 70
    both = settings("environment.time_limit_steps=70", "environment.settings.time_limit_steps=90")
    assert both.time_limit_steps == 90
    with pytest.raises(ConfigError, match=r"'environment.settings.scenaro'; did you mean 'scena"):
        settings("environment.settings.scenaro=stage-1")
    with pytest.raises(ConfigError, match=r"environment.settings.fuel_kg = -1"):
        settings("environment.settings.fuel_kg=-1.0")


def test_more_rays_make_a_longer_schema_and_other_shapes_of_arrays():
    config = make_config(
        environment=LANDER, algorithm="sac", overrides=["environment.settings.lidar_rays=12"]
    )
    schema = known_schema_of(config)
    assert schema is not None
    shapes = policy_shapes(config, Spec(*map(len, schema)))
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    check_arrays(_metadata(config), arrays, "it")
    fewer = make_config(environment=LANDER, algorithm="sac")
    with pytest.raises(RegistryError, match="has shape"):
        check_arrays(_metadata(fewer), arrays, "it")


def _metadata(config):
    observation, action = known_schema_of(config)
    return {"config": config.model_dump(mode="json"), "observation": observation, "action": action}


def test_a_version_of_a_compiled_environment_names_its_safe_action():
    metadata = _metadata(make_config(environment=LANDER))
    assert [entry["safe"] for entry in metadata["action"]] == [0.0] * 6  # which hovers
    assert throttle_of(np, np.float32(safe_action(metadata)[0])) == np.float32(HOVER_THROTTLE)
    older = [{name: entry[name] for name in Entry.model_fields} for entry in metadata["action"]]
    assert is_same_schema(older, metadata["action"])
    assert safe_action(metadata | {"action": older}) == (0.0,) * 6


def test_a_descriptor_may_name_another_safe_action(monkeypatch):
    entries = ([Entry(name="height", unit="m", low=0.0, high=1.0)],
               [ActionEntry(name="brake", unit="full", low=-1.0, high=1.0, safe=1.0)])  # fmt: skip
    braking = dataclasses.replace(COMPILED[LANDER], entries=lambda settings: entries)
    monkeypatch.setitem(COMPILED, LANDER, braking)
    assert safe_action(_metadata(make_config(environment=LANDER))) == (1.0,)


def test_fused_training_needs_a_compiled_environment():
    overrides = ["training.blocks_per_call=2"]
    fused = [name for name, algorithm in ALGORITHMS.items() if algorithm.is_on_policy][0]
    require_source(make_config(algorithm=fused, environment=LANDER, overrides=overrides))
    with pytest.raises(ConfigError, match="which Pendulum-v1 cannot be a part of: set it to 1"):
        require_source(make_config(algorithm=fused, environment="Pendulum-v1", overrides=overrides))


def test_gymnasium_too_says_that_the_time_limit_ended_an_episode():
    config = make_config(overrides=["environment.time_limit_steps=7"], environment=LANDER)
    environment = SingleEnvironment(config.environment, seed=0)
    environment.reset()
    steps = [environment.step(np.zeros(6, np.float32)) for _ in range(7)]
    environment.close()
    assert [step.is_last for step in steps] == [False] * 6 + [True]
    assert (steps[-1].reason, steps[-1].is_success) == ("time_limit", False)
