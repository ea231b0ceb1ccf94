"""Learning that keeps its ratio, resumes bit for bit and stops at the first NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcar.agents import make_agent
from rlcar.errors import CheckpointError, NonFiniteError
from rlcar.replay import Replay
from rlcar.sim import SPEC
from rlcar.storage import checkpoint
from rlcar.training.trainer import Trainer, load_replay
from rlcar.types import Trajectory
from tests.support.tiny_run import BLOCK, make_tiny_config, tiny_agent

CONFIG = make_tiny_config()
T, N = 32, 4


def make_trainer(*overrides: str) -> Trainer:
    return Trainer(make_tiny_config(*overrides), SPEC, tiny_agent(CONFIG))


def make_block(seed: int) -> Trajectory:
    random = np.random.default_rng(seed)
    is_last = np.zeros((T, N), bool)
    is_last[10] = True
    is_first = np.roll(is_last, 1, axis=0)
    return Trajectory(
        random.random((T, N, 6), np.float32),
        random.uniform(-1, 1, (T, N, 2)).astype(np.float32),
        np.where(is_first, 0.0, random.random((T, N))).astype(np.float32),
        is_first,
        is_last,
        is_last,
        np.zeros((T, N), np.int32),
    )


def learn(trainer: Trainer, seeds: range) -> Trainer:
    """Inserts a block a seed and runs all train steps that are due."""
    for seed in seeds:
        trainer.insert(make_block(seed))
        while trainer.calls_due():
            trainer.train()
    return trainer


def replay_of(save) -> dict[str, np.ndarray]:
    replay = Replay(CONFIG.replay, SPEC, T, seed=1)
    replay.restore(*load_replay(save))
    return replay.state()


def test_train_steps_compiled_ahead_are_not_compiled_again(caplog):
    overrides = ["algorithm=sac", "replay.batch_length=2", "replay.batch_size=8"]
    config = make_tiny_config(*overrides)
    trainer = Trainer(config, SPEC, make_agent(config, SPEC))

    def compiled() -> int:
        lines = [record.getMessage() for record in caplog.records]
        return sum(line.startswith("Compiling jit(update)") for line in lines)

    jax.config.update("jax_log_compiles", True)  # in every thread
    try:
        trainer.compile_ahead()
        trainer.wait_until_compiled()
        assert compiled() == 1
        learn(trainer, range(4))
    finally:
        jax.config.update("jax_log_compiles", False)
    assert trainer.train_steps
    assert compiled() == 1


def test_the_wait_for_a_compilation_ends_when_asked_to_stop():
    config = make_tiny_config("algorithm=sac", "replay.batch_length=2", "replay.batch_size=8")
    trainer = Trainer(config, SPEC, make_agent(config, SPEC))
    trainer.compile_ahead()
    trainer.wait_until_compiled(lambda: True)
    assert trainer._compiling is not None
    trainer.wait_until_compiled()
    assert trainer._compiling is None


def poison(trainer: Trainer) -> None:
    trainer._state = jax.tree.map(
        lambda x: x * jnp.nan if x.dtype == jnp.float32 else x, trainer._state
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A trainer after six blocks, and its save after four."""
    trainer = learn(make_trainer(), range(4))
    save = trainer.save(tmp_path_factory.mktemp("saves"), {"train_seconds": 1.0})
    return learn(trainer, range(4, 6)), save


def test_no_step_is_sampled_before_the_memory_holds_enough():
    trainer = make_trainer()
    trainer.insert(make_block(0))
    trainer.insert(make_block(1))
    assert (trainer.env_steps, trainer.calls_due()) == (256, 0)


def test_the_samples_for_each_insert_are_as_configured(uninterrupted):
    trainer, _ = uninterrupted
    # Four blocks after the first 256 env steps: 4 x 128 x 16 sampled steps, of 8 x 16 an update.
    assert trainer.env_steps == 6 * BLOCK
    assert trainer.train_steps == 4 * BLOCK * 16 // (8 * 16) == 64


def test_little_replay_waits_for_many_blocks():
    # A call takes 8 x 128 steps; at half a sample for each env step that is 16 blocks.
    trainer = make_trainer("replay.samples_per_insert=0.5")
    blocks = 0
    while not trainer.calls_due():
        trainer.insert(make_block(blocks))
        blocks += 1
    assert blocks * BLOCK == 256 + trainer.updates_per_call * 128 / 0.5


def test_the_weights_version_counts_train_steps_and_lag_is_counted_from_it(uninterrupted):
    trainer = make_trainer()
    assert trainer.weights().version == 0
    learn(trainer, range(3))
    weights = trainer.weights()
    assert weights.version == trainer.train_steps == 16
    assert trainer.insert(make_block(3)) == {"rollout/weights_lag_updates": 16.0}


def test_published_weights_do_not_change_while_training_goes_on():
    trainer = learn(make_trainer(), range(3))
    weights = trainer.weights()
    before = jax.tree.map(np.copy, weights.params)
    learn(trainer, range(3, 4))
    jax.tree.map(np.testing.assert_array_equal, weights.params, before)
    after = jax.tree.leaves(trainer.weights().params)
    assert any((a != b).any() for a, b in zip(after, jax.tree.leaves(before), strict=True))


def test_a_restored_trainer_goes_on_bit_for_bit(uninterrupted):
    straight, save = uninterrupted
    resumed = make_trainer()
    resumed.restore(save)
    assert (resumed.env_steps, resumed.train_steps) == (4 * BLOCK, 32)
    learn(resumed, range(4, 6))
    assert (resumed.env_steps, resumed.train_steps) == (straight.env_steps, straight.train_steps)
    assert resumed._limiter.state() == straight._limiter.state()
    # The whole state: params, optimizer, return range, averages and the random key.
    jax.tree.map(np.testing.assert_array_equal, resumed._state, straight._state)
    saved, expected = resumed._replay.state(), straight._replay.state()
    for name in expected:
        np.testing.assert_array_equal(saved[name], expected[name], err_msg=name)


def test_a_save_between_two_whole_replays_writes_only_what_came_since(tmp_path):
    trainer, saves = make_trainer(), []
    for seed in range(8):
        trainer.insert(make_block(seed))
        saves.append(trainer.save(tmp_path, {}))
        for name, array in trainer._replay.state().items():
            np.testing.assert_array_equal(replay_of(saves[-1])[name], array, err_msg=name)
    # A whole one whenever what came since is more than half of it.
    assert [checkpoint.needs(one) for one in saves] == [
        [],
        ["step-000000128"],
        [],
        *[["step-000000384"]] * 3,
        [],
        ["step-000000896"],
    ]
    checkpoint.keep(tmp_path, 1)
    assert [one.env_steps for one in checkpoint.saves(tmp_path)] == [896, 1024]
    trainer = make_trainer()
    trainer.restore(saves[-1])
    assert trainer._replay.check_valid() == (True, "")
    assert trainer.env_steps == 1024


def test_poisoned_parameters_are_not_published():
    trainer = make_trainer()
    poison(trainer)
    with pytest.raises(NonFiniteError, match="non-finite of"):
        trainer.weights()


def test_poisoned_parameters_stop_training_with_the_metric_s_name_and_earlier_saves_stay_whole(
    tmp_path,
):
    trainer = learn(make_trainer(), range(3))
    good = trainer.save(tmp_path, {"train_seconds": 1.0})
    poison(trainer)
    trainer.insert(make_block(3))
    with pytest.raises(NonFiniteError, match=r"^[a-z_]+/[a-z_]+ is nan after 24 train steps"):
        trainer.train()
    with pytest.raises(NonFiniteError):
        trainer.save(tmp_path, {"train_seconds": 2.0})
    assert [save.path for save in checkpoint.saves(tmp_path)] == [good.path]
    make_trainer().restore(good)


# Another learning rate is another jit, so an algorithm that compiles in seconds.
OUT_OF_THIS_WORLD = ("algorithm=documented", "documented.learning_rate=1e38")


def test_a_learning_rate_out_of_this_world_is_noticed():
    config = make_tiny_config(*OUT_OF_THIS_WORLD)
    trainer = Trainer(config, SPEC, tiny_agent(config))
    with pytest.raises(NonFiniteError, match=r"^[a-z_]+/[a-z_]+ is (nan|inf) after \d+ train"):
        learn(trainer, range(4))


def test_a_block_with_a_nan_is_refused_before_anything_is_counted():
    trainer = make_trainer()
    block = make_block(0)
    block.reward[3, 1] = np.nan
    with pytest.raises(NonFiniteError, match=r"trajectory\.reward is nan at step 3 of car 1"):
        trainer.insert(block)
    assert trainer.env_steps == 0


def test_a_save_of_another_architecture_is_refused_and_names_the_array(uninterrupted):
    other = make_tiny_config("dreamer.actor_critic.units=16")
    with pytest.raises(CheckpointError, match=r"another architecture.*learner\.params"):
        Trainer(other, SPEC, tiny_agent(other)).restore(uninterrupted[1])


def test_with_debug_nans_the_operation_that_makes_one_is_named():
    config = make_tiny_config(*OUT_OF_THIS_WORLD)
    trainer = Trainer(config, SPEC, make_agent(config, SPEC))
    for seed in range(4):
        trainer.insert(make_block(seed))
    with jax.debug_nans(True), pytest.raises(NonFiniteError, match=r"encountered in .* after \d"):
        [trainer.train() for _ in range(3)]
