"""The race has the same bits in NumPy and JAX, at any batch size, in a scan and in single calls."""

import functools
import hashlib
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcar.config import make_race_config
from rlcar.config.race import RaceConfig, TrackConfig
from rlcar.sim import make_race
from rlcar.sim.backend import make_backend
from rlcar.sim.race import make_world, race_of
from rlcar.track import make_pool

GOLDEN = Path(__file__).parents[1] / "golden" / "race.json"
CONFIGS = {
    "classic": RaceConfig(time_limit_steps=180),
    "road obstacles, documented": RaceConfig(
        track=TrackConfig(obstacle_placement="road", obstacles=6), reward="documented", laps=2
    ),
    "grand-prix": make_race_config("grand-prix", laps=2),
}
CARS, STEPS, SEED = 1024, 300, 3
# Compiles with the emitters of a user's program, unlike the other tests (tests/conftest.py).
_jit = functools.partial(jax.jit, compiler_options={"xla_cpu_use_fusion_emitters": True})


@functools.cache
def _pool(name):
    return make_pool(range(300), CONFIGS[name].track)


def _noise(step, car_id, xp):
    """Returns steering disturbances that are the same numbers in NumPy and JAX, `[N]`."""
    word = (car_id * 20_503 + (step >> 4) * 9_973) & 0x7FFF
    # A fifth of the cars are disturbed so much, 16 steps long each time, that they crash.
    strength = xp.where(car_id % 5 == 0, np.float32(2.0**-12), np.float32(2.0**-16))
    return (word - 0x4000).astype(np.float32) * strength


def _act(step, state, observation, xp):
    """Steers towards the longer of two rays; one multiplication and exact sums of eighths."""
    right = xp.rint(observation[:, 1] * np.float32(8))
    left = xp.rint(observation[:, 3] * np.float32(8))
    steering = (left - right) * np.float32(0.25) + _noise(step, state.car_id, xp)
    return xp.stack([steering, xp.ones_like(steering)], axis=1)


def _outputs(state, time_step, events):
    return (state, time_step, events)


def _drive_numpy(race, car_id, steps=STEPS):
    state, time_step = race.reset(car_id, SEED)
    rows = []
    for step in range(steps):
        action = _act(step, state, time_step.observation, np)
        state, time_step, events = race.step(state, action)
        rows.append(_outputs(state, time_step, events))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


def _drive_jax(race, car_id, steps=STEPS):
    @_jit
    def scan(state, observation):
        def body(carry, step):
            state, observation = carry
            action = _act(step, state, observation, jnp)
            state, time_step, events = race.step(state, action)
            return (state, time_step.observation), _outputs(state, time_step, events)

        return jax.lax.scan(body, (state, observation), jnp.arange(steps, dtype=jnp.int32))[1]

    state, time_step = _jit(race.reset)(car_id, SEED)
    return jax.tree.map(np.asarray, scan(state, time_step.observation))


def _digest(recorded):
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(recorded):
        digest.update(f"{leaf.dtype} {leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


@functools.cache
def _reference(name):
    race = make_race(CONFIGS[name], _pool(name), xp=np)
    return _drive_numpy(race, np.arange(CARS, dtype=np.int32))


def _assert_same(recorded, reference):
    for leaf, other in zip(jax.tree.leaves(recorded), jax.tree.leaves(reference), strict=True):
        assert leaf.dtype == other.dtype
        assert np.ascontiguousarray(leaf).tobytes() == np.ascontiguousarray(other).tobytes()


def test_the_recorded_races_have_not_changed():
    digests = {name: _digest(_reference(name)) for name in CONFIGS}
    if os.environ.get("RLCAR_UPDATE_GOLDEN") == "1":
        GOLDEN.write_text(json.dumps(digests, indent=2) + "\n")
    assert digests == json.loads(GOLDEN.read_text()), (
        "the race changed. Not meant? A bug. Meant? `make golden` and say why in the commit."
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_the_recorded_races_hold_crashes_time_outs_laps_and_resets(name):
    _, time_step, events = _reference(name)
    assert events.is_crash.sum() > 100
    assert (events.lap_time_steps > 0).sum() > 10 or name == "classic"
    assert time_step.is_first.sum() > 100
    assert (time_step.is_last & ~time_step.is_terminal).sum() > 100 or name != "classic"


@pytest.mark.parametrize("cars", [1, 7, CARS])  # a scalar, less than a vector, and many of them
@pytest.mark.parametrize("name", CONFIGS)
def test_a_jax_scan_repeats_the_numpy_race_at_any_batch_size(name, cars):
    race = make_race(CONFIGS[name], _pool(name))
    reference = jax.tree.map(lambda leaf: leaf[:, :cars], _reference(name))
    _assert_same(_drive_jax(race, np.arange(cars, dtype=np.int32)), reference)


@pytest.mark.parametrize("name", ["grand-prix"])  # the race with most arithmetic
def test_four_thousand_cars_drive_the_same_race(name):
    car_id = np.arange(4096, dtype=np.int32)
    by_jax = _drive_jax(make_race(CONFIGS[name], _pool(name)), car_id, steps=40)
    _assert_same(by_jax, _drive_numpy(make_race(CONFIGS[name], _pool(name), xp=np), car_id, 40))
    first = jax.tree.map(lambda leaf: leaf[:, :CARS], by_jax)
    _assert_same(first, jax.tree.map(lambda leaf: leaf[:40], _reference(name)))


@pytest.mark.parametrize("name", CONFIGS)
def test_single_jitted_calls_repeat_the_scan(name):
    race = make_race(CONFIGS[name], _pool(name))
    step = _jit(race.step)
    state, time_step = _jit(race.reset)(np.arange(7, dtype=np.int32), SEED)
    rows = []
    for index in range(60):
        action = _act(index, state, time_step.observation, jnp)
        state, time_step, events = step(state, action)
        rows.append(jax.tree.map(np.asarray, _outputs(state, time_step, events)))
    recorded = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
    reference = jax.tree.map(lambda leaf: leaf[:60, :7], _reference(name))
    _assert_same(recorded, reference)


def test_on_a_cpu_a_step_is_one_kernel():
    """Starting about 50 kernels would take longer than a step of 64 cars."""
    race = make_race(CONFIGS["grand-prix"], _pool("grand-prix"))
    state, _ = race.reset(np.arange(8, dtype=np.int32), SEED)
    compiled = _jit(race.step).lower(state, np.zeros((8, 2), np.float32)).compile().as_text()
    entry = compiled[compiled.index("\nENTRY ") :]
    assert entry.count(" call(") == 1
    assert entry.count(" fusion(") <= 2  # copies of what the step does not change


@pytest.mark.parametrize("name", CONFIGS)
def test_no_intermediate_overflows_int32_because_int64_gives_the_same_race(name):
    backend = make_backend(np)._replace(integer=np.int64)
    race = race_of(make_world(CONFIGS[name], _pool(name), backend))
    cars = CARS // 4
    wide = _drive_numpy(race, np.arange(cars))
    assert jax.tree.leaves(wide)[0].dtype == np.int64
    reference = jax.tree.map(lambda leaf: leaf[:, :cars], _reference(name))
    for leaf, other in zip(jax.tree.leaves(wide), jax.tree.leaves(reference), strict=True):
        np.testing.assert_array_equal(leaf, other)
