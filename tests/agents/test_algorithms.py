"""What every algorithm must do, whichever it is."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from rlcar.agents import ALGORITHMS, make_agent
from rlcar.config import make_config
from rlcar.errors import CheckpointError, ConfigError
from rlcar.storage import checkpoint
from rlcar.storage.arrays import read_arrays
from rlcar.training.loop import train
from rlcar.training.trainer import Trainer
from tests.agents.dreamer.tiny import DISCRETE, SPEC, largest, quick_learner, random_batch
from tests.support.tiny_run import compiled_once, make_tiny_config

GOLDEN = Path(__file__).parents[1] / "golden" / "algorithms.json"
FILES = ("state", "rollout")
# These two have tests of their own, in their folders.
TESTED_APART = ("dreamer", "documented")
PRESETS = (
    *(one.default_preset for name, one in ALGORITHMS.items() if name not in TESTED_APART),
    "recurrent-ppo",
)
ALL_PRESETS = (*(one.default_preset for one in ALGORITHMS.values()), "recurrent-ppo")
# `tests/training/test_recorded.py` trains those that learn from recorded data, and
# `tests/training/test_loop.py` the world model.
DRIVING = [
    preset
    for preset in PRESETS
    if preset not in ALGORITHMS or not ALGORITHMS[preset].learns_offline
]
CONTINUOUS = [name for name, one in ALGORITHMS.items() if not one.supports_discrete_actions]


def _config(preset):
    return make_config(preset, mode="test")


def _learner(preset, spec=SPEC):
    return quick_learner(make_agent(_config(preset), spec).learner)


@pytest.fixture(scope="module")
def learners():
    return {preset: _learner(preset) for preset in PRESETS}


def _batches(preset, *shape, spec=SPEC):
    return random_batch(
        *shape, spec=spec, carry_size=make_agent(_config(preset), spec).policy.carry_size
    )


def _run(learner, batches, seed=0, calls=1):
    state = learner.init(seed)
    for _ in range(calls):
        state, metrics = learner.update(state, batches)
    return jax.device_get((state, metrics))


@pytest.mark.parametrize("preset", PRESETS)
def test_two_runs_of_one_seed_are_equal_bit_for_bit_and_another_seed_is_another_run(
    learners, preset
):
    batches = _batches(preset, 2, 4, 12)
    first, again, other = (_run(learners[preset], batches, seed, 2) for seed in (3, 3, 4))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    loss = "critic/loss" if "critic/loss" in first[1] else "actor/loss"
    assert first[1][loss] != other[1][loss]


@pytest.mark.parametrize("preset", ALL_PRESETS)
def test_an_update_compiles_once_as_the_initial_state_has_the_types_of_all_later_ones(preset):
    """A weakly typed number, such as `jnp.log(0.1)`, would be another program's input."""
    state = jax.eval_shape(make_agent(_config(preset), SPEC).learner.init, 0)
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    assert [jax.tree_util.keystr(path) for path, leaf in leaves if leaf.weak_type] == []


@pytest.mark.parametrize("preset", PRESETS)
def test_the_golden_train_step_has_not_changed(learners, preset):
    _, metrics = _run(learners[preset], _batches(preset, 2, 4, 12), seed=7)
    found = {name: float(value) for name, value in metrics.items()}
    stored = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("RLCAR_UPDATE_GOLDEN") == "1":
        stored[preset] = found
        GOLDEN.write_text(json.dumps(stored, indent=2, sort_keys=True) + "\n")
    assert found == pytest.approx(stored[preset], rel=1e-3, abs=1e-5), (
        "not meant? a bug. Meant? `make golden` and say why in the commit"
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_extreme_observations_and_rewards_leave_everything_finite(learners, preset):
    batches = _batches(preset, 2, 4, 12)
    extreme = batches._replace(
        observation=(1e6 * np.sign(batches.observation - 0.5)).astype(np.float32),
        reward=1e6 * np.sign(batches.reward),
        carry=None if batches.carry is None else 1e6 * np.sign(batches.carry + 1.0),
    )
    state, metrics = _run(learners[preset], extreme, calls=3)
    assert np.isfinite(largest(state))
    assert np.isfinite(largest(metrics))


@pytest.mark.parametrize("preset", PRESETS)
def test_what_leads_across_a_reset_teaches_nothing(learners, preset):
    """The first step of an episode: its action was ignored, its reward is nobody's."""
    batches = _batches(preset, 1, 4, 12)
    first = batches.is_first
    assert first.sum() > 2
    other = batches._replace(
        previous_action=np.where(first[..., None], 0.77, batches.previous_action).astype(np.float32)
    )
    one, another = (_run(learners[preset], seen) for seen in (batches, other))
    jax.tree.map(np.testing.assert_array_equal, one, another)


@pytest.mark.parametrize("preset", [*DRIVING, "documented"])
def test_a_stopped_and_resumed_training_equals_the_uninterrupted_one_bit_for_bit(preset, tmp_path):
    settings = {"recurrent-ppo": ["algorithm=ppo", "ppo.recurrent_units=8"]}
    never = "training.evaluate_every_env_steps=1024"  # what evaluates does not train
    config = make_tiny_config(never, *settings.get(preset, [f"algorithm={preset}"]))
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    with compiled_once():
        train(config, whole)
        shutil.copytree(whole, parted)
        for save in checkpoint.saves(parted / "checkpoints"):
            if save.env_steps > 512:
                shutil.rmtree(save.path)
        train(config, parted, checkpoint.latest(parted / "checkpoints"))
    saves = [checkpoint.latest(folder / "checkpoints") for folder in (whole, parted)]
    assert [save.env_steps for save in saves] == [768, 768]
    for one, other in (
        *((read_arrays(save.path / f"{file}.safetensors") for save in saves) for file in FILES),
        (_replay(config, save) for save in saves),
    ):
        assert one.keys() == other.keys()
        for name, array in one.items():
            np.testing.assert_array_equal(other[name], array, err_msg=name)


def _replay(config, save):
    trainer = Trainer(config, SPEC, make_agent(config, SPEC))
    trainer.restore(save)
    return trainer._replay.state()


def test_a_checkpoint_of_another_algorithm_is_refused(tmp_path):
    save = _trainer("sac").save(tmp_path, {"train_seconds": 1.0})
    with pytest.raises(CheckpointError, match="is a checkpoint of sac, which td3 cannot continue"):
        _trainer("td3").restore(save)


@pytest.mark.parametrize(("part", "value"), [("variance", -1.0), ("count", 0.0)])
def test_moments_that_no_data_can_have_are_refused(part, value, tmp_path):
    trainer = _trainer("ppo")
    moments = trainer._state.moments
    wrong = moments._replace(**{part: value * np.ones_like(getattr(moments, part))})
    trainer._state = trainer._state._replace(moments=wrong)
    save = trainer.save(tmp_path, {"train_seconds": 1.0})
    with pytest.raises(CheckpointError, match=f"moments.{part} is {value:.3g}, "):
        _trainer("ppo").restore(save)


def _trainer(algorithm):
    config = make_tiny_config(f"algorithm={algorithm}")
    return Trainer(config, SPEC, make_agent(config, SPEC))


@pytest.mark.parametrize("preset", CONTINUOUS)
def test_an_algorithm_that_cannot_choose_among_actions_says_so(preset):
    with pytest.raises(ConfigError, match=f"{preset} cannot choose among discrete actions"):
        make_agent(_config(preset), DISCRETE)


def test_ppo_can_choose_among_actions():
    state, metrics = _run(_learner("ppo", DISCRETE), _batches("ppo", 2, 4, 12, spec=DISCRETE))
    assert np.isfinite(largest(state))
    assert 0 < metrics["actor/entropy"] <= np.log(3) + 1e-5


def test_an_agent_is_built_before_jax_has_threads():
    """The command line builds one to check it, and then starts Ray, which forks."""
    lines = [
        "import os",
        "from rlcar.agents import make_agent",
        "from rlcar.config import make_config",
        "from rlcar.sim import SPEC",
        *(f"make_agent(make_config({name!r}), SPEC)" for name in ALL_PRESETS),
        "os.fork() or os._exit(0)",
        "os.wait()",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""  # JAX warns of forks once it has threads
