"""Atari games are the same through every back end, and what is missing is said in one sentence."""

import builtins
import importlib.util
from contextlib import closing

import numpy as np
import pytest

from rlcar.config import make_config
from rlcar.envs.vector import environment_spec, make_vector
from rlcar.errors import ConfigError, NonFiniteError
from rlcar.training.loop import train
from rlcar.types import Spec

HAS_ENVPOOL = importlib.util.find_spec("envpool") is not None
needs_envpool = pytest.mark.skipif(not HAS_ENVPOOL, reason="EnvPool is not installed")
OTHERS = ["gymnasium", pytest.param("envpool", marks=needs_envpool)]
BACKENDS = ["ale", *OTHERS]
THREADED = ["ale", pytest.param("envpool", marks=needs_envpool)]
ACTIONS = {"Pong": 6, "Breakout": 4, "Freeway": 3}


def environment_of(backend, game, *overrides):
    """Returns settings in which a game always begins in the same way."""
    settings = [
        f"environment.backend={backend}",
        "environment.image_size_px=42",
        "environment.frame_stack=2",
        "environment.atari.start_frames=1",
        *overrides,
    ]
    return make_config(environment=f"ALE/{game}-v5", overrides=settings).driven_environment


def play(environment, steps, is_training=True, seed=0):
    """Returns the time steps of two games with random actions, stacked to `[T, 2, ...]`."""
    with closing(make_vector(environment, [5, 6], is_training=is_training)) as vector:
        number = vector.spec.action_size
        choices = np.random.default_rng(seed).integers(number, size=(steps, 2))
        seen = [vector.now]
        for choice in choices:
            vector.step(np.eye(number, dtype=np.float32)[choice])
            seen.append(vector.now)
    return type(seen[0])(*(np.stack(parts) for parts in zip(*seen, strict=True)))


@pytest.mark.parametrize("game", ACTIONS)
@pytest.mark.parametrize("backend", OTHERS)
def test_back_ends_agree_on_images_rewards_and_ends(backend, game):
    rules = ["environment.time_limit_steps=120", "environment.atari.life_loss_ends_episode=true"]
    expected = play(environment_of("ale", game, *rules), 300)
    actual = play(environment_of(backend, game, *rules), 300)
    assert actual.image.shape == expected.image.shape == (301, 2, 42, 42, 2)
    assert actual.image.dtype == expected.image.dtype == np.uint8
    np.testing.assert_array_equal(actual.reward, expected.reward)
    np.testing.assert_array_equal(actual.is_first, expected.is_first)
    np.testing.assert_array_equal(actual.is_last, expected.is_last)
    np.testing.assert_array_equal(actual.is_terminal, expected.is_terminal)
    assert expected.is_last.any()
    # A console that has run begins its next game in another state than one that has not, so that
    # only first games are alike in every pixel.
    is_first_game = np.cumsum(expected.is_first, axis=0) == 1
    difference = np.abs(actual.image.astype(int) - expected.image)[is_first_game]
    if (backend, game) == ("envpool", "Freeway"):
        # EnvPool starts games without a fire button one frame later; the cars have moved on.
        assert np.median(difference) == 0
    else:
        assert difference.max() <= 1  # rounding of the scaled screen


@pytest.mark.parametrize("backend", THREADED)
def test_an_action_is_repeated_for_the_skipped_frames(backend):
    once = play(environment_of(backend, "Pong", "environment.atari.frame_skip=1"), 40)
    assert not (once.image[1:] != once.image[:-1]).any(axis=(2, 3, 4)).all()
    with (
        closing(
            make_vector(environment_of(backend, "Pong", "environment.atari.frame_skip=1"), [1])
        ) as single,
        closing(make_vector(environment_of(backend, "Pong"), [1])) as repeated,
    ):
        up = np.eye(6, dtype=np.float32)[[2]]
        for _ in range(5):
            repeated.step(up)
            for _ in range(4):
                single.step(up)
        # The newest frame alone may lack an object, which the maximum of two frames shows.
        assert (repeated.now.image[..., -1] >= single.now.image[..., -1]).mean() > 0.99


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_training_clips_rewards_and_ends_episodes_with_a_life(backend):
    rules = ["environment.atari.life_loss_ends_episode=true", "environment.atari.frame_skip=8"]
    environment = environment_of(backend, "MsPacman", *rules)
    training, playing = play(environment, 220), play(environment, 220, is_training=False)
    assert set(np.unique(training.reward)) == {0.0, 1.0}
    assert playing.reward.max() >= 10.0
    assert (playing.reward > 0).sum() >= (training.reward > 0).sum() > 0
    assert training.is_last.sum() > playing.is_last.sum()
    assert training.is_terminal[training.is_last].all()
    after = np.zeros_like(training.is_last)
    after[1:] = training.is_last[:-1]
    np.testing.assert_array_equal(training.is_first[1:], after[1:])
    assert not training.reward[training.is_first].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_call_after_the_time_limit_ignores_the_action_and_begins_again(backend):
    seen = play(environment_of(backend, "Pong", "environment.time_limit_steps=7"), 20)
    assert np.flatnonzero(seen.is_first[:, 0]).tolist() == [0, 8, 16]
    assert np.flatnonzero(seen.is_last[:, 0]).tolist() == [7, 15]
    assert not seen.is_terminal.any()
    first = seen.image[seen.is_first]
    np.testing.assert_array_equal(first[..., 0], first[..., 1])  # the stack begins with copies


@pytest.mark.parametrize("backend", BACKENDS)
def test_seeds_decide_the_frames_before_the_first_action(backend):
    environment = environment_of(backend, "Boxing", "environment.atari.start_frames=30")
    first, again = (play(environment, 30) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (first.image[0, 0] != first.image[0, 1]).any()


@pytest.mark.parametrize("backend", THREADED)
def test_colour_and_the_full_action_space(backend):
    rules = ["environment.atari.gray_scale=false", "environment.atari.full_action_space=true"]
    assert environment_spec(environment_of(backend, "Freeway", *rules)) == Spec(
        0, 18, True, (42, 42, 6)
    )


def test_only_algorithms_without_memory_see_several_frames():
    def frames(algorithm, *overrides):
        config = make_config(algorithm=algorithm, environment="ALE/Pong-v5", overrides=[*overrides])
        return config.driven_environment.frame_stack

    assert frames("dreamer") == 1
    assert frames("ppo") == 4
    assert frames("ppo", "ppo.recurrent_units=8") == 1
    assert frames("dreamer", "environment.frame_stack=3") == 3


def test_an_action_that_is_not_finite_is_the_policys_fault():
    with (
        closing(make_vector(environment_of("ale", "Pong"), [1])) as vector,
        pytest.raises(NonFiniteError, match="the policy chose the action"),
    ):
        vector.step(np.full((1, 6), np.nan, np.float32))


@pytest.mark.parametrize(
    ("backend", "id_", "message"),
    [
        ("ale", "ALE/Pnog-v5", r"there is no Atari game 'Pnog'; did you mean 'Pong'\?"),
        ("gymnasium", "ALE/Pnog-v5", r"did you mean 'Pong'\?"),
        pytest.param("envpool", "ALE/Pnog-v5", r"did you mean 'Pong'\?", marks=needs_envpool),
        ("ale", "CartPole-v1", "environment.backend = ale makes Atari games alone"),
        ("envpool", "CartPole-v1", "environment.backend = envpool makes Atari games alone"),
    ],
)
def test_what_a_back_end_cannot_make_is_one_sentence(backend, id_, message):
    config = make_config(environment=id_, overrides=[f"environment.backend={backend}"])
    with pytest.raises(ConfigError, match=message) as caught:
        environment_spec(config.environment)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("module", "backend", "message"),
    [
        ("ale_py", "ale", r"ale-py is not installed: pip install 'rlcar\[atari\]'"),
        ("ale_py", "gymnasium", r"ale-py is not installed: pip install 'rlcar\[atari\]'"),
        ("envpool", "envpool", r"EnvPool is not installed: pip install 'rlcar\[envpool\]'"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(module, backend, message, monkeypatch):
    def without(name, *rest, real=builtins.__import__):
        if name.partition(".")[0] == module:
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=message):
        environment_spec(environment_of(backend, "Pong"))


def test_a_missing_rom_is_named_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"the ROM pong\.bin cannot be used .*ALE_ROMS_DIR"):
        environment_spec(environment_of("ale", "Pong"))
    (tmp_path / "nowhere").mkdir()
    (tmp_path / "nowhere" / "pong.bin").write_bytes(b"another program")
    with pytest.raises(ConfigError, match=r"the ROM pong\.bin cannot be used"):
        environment_spec(environment_of("ale", "Pong"))


@pytest.mark.long
@pytest.mark.parametrize("game", ACTIONS)
@pytest.mark.parametrize("backend", THREADED)
def test_games_train_from_end_to_end(backend, game, tmp_path):
    config = make_config(
        preset="ppo-atari-small",
        environment=f"ALE/{game}-v5",
        overrides=[
            f"environment.backend={backend}",
            "environment.time_limit_steps=30",
            "training.cars=4",
            "training.block_length=17",
            "replay.batch_length=17",
            "training.env_steps=204",
            "training.evaluate_every_env_steps=100",
            "ppo.image_units=16",
            "ppo.minibatch_size=32",
        ],
    )
    assert train(config, tmp_path / "run").summary["env_steps"] == 204
