"""The adapter converts Gymnasium's spaces to arrays and refuses unsupported ones."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from rlcar.config import EnvironmentConfig, make_config
from rlcar.envs.adapter import make_adapter
from rlcar.envs.making import make_environment
from rlcar.errors import ConfigError


class Spaces(gymnasium.Env):
    def __init__(self, observation, action):
        self.observation_space, self.action_space = observation, action


def adapter_of(observation, action=None, **settings):
    env = Spaces(observation, spaces.Discrete(2) if action is None else action)
    return make_adapter(EnvironmentConfig(id="mine", **settings), env)


def test_a_dictionary_of_numbers_choices_and_images_is_one_vector_and_one_image():
    space = spaces.Dict(
        {
            "camera": spaces.Box(0, 255, (20, 30, 3), np.uint8),
            "depth": spaces.Box(0, 255, (40, 40), np.uint8),
            "pose": spaces.Dict({"speed": spaces.Box(-5, 5, (2,)), "gear": spaces.Discrete(4)}),
        }
    )
    adapter = adapter_of(space, image_size_px=16)
    assert adapter.spec == (6, 2, True, (16, 16, 4))
    camera = np.zeros((20, 30, 3), np.uint8)
    camera[:, 15:, 1] = 200
    depth = np.full((40, 40), 90, np.uint8)
    seen = {"camera": camera, "depth": depth, "pose": {"speed": [1.5, -2], "gear": 2}}
    assert adapter.vector(seen).tolist() == [0, 0, 1, 0, 1.5, -2]  # gear comes before speed
    image = adapter.image(seen)
    assert (image.shape, image.dtype) == ((16, 16, 4), np.uint8)
    assert (image[:, :7, 1] == 0).all()
    assert (image[:, 9:, 1] == 200).all()
    assert (image[..., 3] == 90).all()


def test_vectors_alone_have_no_image_and_images_alone_no_vector():
    adapter = adapter_of(spaces.Box(-1, 1, (3,)), spaces.Box(-2.0, 6.0, (2,)))
    assert adapter.spec == (3, 2, False, None)
    assert adapter.image(np.zeros(3)) is None
    np.testing.assert_allclose(adapter.action(np.array([-1.0, 0.0])), [-2.0, 2.0])
    np.testing.assert_allclose(adapter.action(np.array([9.0, -9.0])), [6.0, -2.0])
    pixels = adapter_of(spaces.Box(0, 255, (32, 32, 1), np.uint8), spaces.Discrete(3, start=5))
    assert pixels.spec == (0, 3, True, (32, 32, 1))
    assert pixels.vector(np.zeros((32, 32, 1), np.uint8)).shape == (0,)
    assert pixels.action(np.array([0.0, 0.0, 1.0])) == 7


@pytest.mark.parametrize(
    ("shape", "size_px"), [((32, 32, 1), 32), ((210, 160, 3), 64), ((32, 16, 1), 64)]
)
def test_images_keep_their_size_if_the_networks_support_it(shape, size_px):
    spec = adapter_of(spaces.Box(0, 255, shape, np.uint8)).spec
    assert spec.image_shape == (size_px, size_px, shape[2])


@pytest.mark.parametrize(
    ("observation", "action", "words"),
    [
        (spaces.Text(3), None, "the observation is a Text, which cannot be observed"),
        (spaces.Dict({"a": spaces.Dict({"b": spaces.Text(3)})}), None, r"a\.b is a Text"),
        (spaces.Discrete(2), spaces.MultiDiscrete([2, 2]), "its actions are a MultiDiscrete"),
        (spaces.Discrete(2), spaces.Dict({"a": spaces.Discrete(2)}), "its actions are a Dict"),
        (spaces.Discrete(2), spaces.Box(-np.inf, np.inf, (1,)), "no finite bounds"),
    ],
)
def test_an_unsupported_space_is_named(observation, action, words):
    with pytest.raises(ConfigError, match=words):
        adapter_of(observation, action)


@pytest.mark.parametrize("name", ["NoSuch-v0", "nosuchmodule:Thing-v0", "ALE/NoSuch-v5", "a b"])
def test_an_unknown_environment_is_refused_with_advice(name):
    with pytest.raises(ConfigError, match="name it as module:id"):
        make_environment(EnvironmentConfig(id=name))


def test_settings_of_the_environment_are_its_keyword_arguments():
    config = make_config(
        environment="CartPole-v1", overrides=["environment.settings.sutton_barto_reward=true"]
    ).environment
    env = make_environment(config)
    assert env.unwrapped._sutton_barto_reward is True
    env.close()
    wrong = EnvironmentConfig(id="CartPole-v1", settings={"wheels": 3})
    with pytest.raises(ConfigError, match="with environment.settings {'wheels': 3}: .*'wheels'"):
        make_environment(wrong)
    with pytest.raises(ConfigError, match=r"environment.settings.wheels = \[3\]"):
        make_config(environment="CartPole-v1", overrides=["environment.settings.wheels=[3]"])


@pytest.mark.parametrize(
    ("observation", "action"),
    [
        (spaces.Dict({}), spaces.Discrete(2)),
        (spaces.Box(-1, 1, (0,)), spaces.Discrete(2)),
        (spaces.Box(-1, 1, (3,)), spaces.Box(-1.0, 1.0, (0,))),
    ],
)
def test_empty_observations_and_actions_are_refused(observation, action):
    with pytest.raises(ConfigError, match=r"mine: it has \d numbers to observe and \d to act"):
        adapter_of(observation, action)
