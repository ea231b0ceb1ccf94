"""The replay buffer returns what was inserted, in uniform windows, also after a restore."""

import time

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlcar.config import ReplayConfig
from rlcar.errors import CheckpointError, NonFiniteError
from rlcar.replay import Replay
from rlcar.storage import checkpoint
from rlcar.types import Spec, Trajectory

SPEC = Spec(observation_size=3, action_size=2)
T = 6


def make_replay(seed=0, **changes) -> Replay:
    known = {"capacity_env_steps": 60, "min_env_steps": 1, "batch_size": 5, "batch_length": 4}
    return Replay(ReplayConfig(**(known | changes)), SPEC, block_length=T, seed=seed)


def make_trajectory(cars, first_id=0, version=0, length=T, spec=SPEC) -> Trajectory:
    """Returns a trajectory with rewards 100 x car + step; observations and actions repeat them."""
    car = first_id + np.arange(cars)
    reward = (100 * car + np.arange(length)[:, None]).astype(np.float32)  # [T, N]
    step = np.broadcast_to(np.arange(length)[:, None], (length, cars))
    return Trajectory(
        observation=np.repeat(reward[..., None], spec.observation_size, -1),
        previous_action=np.repeat(-reward[..., None], spec.action_size, -1),
        reward=np.where(step == 3, np.float32(0), reward),
        is_first=step == 3,
        is_last=step == 2,
        is_terminal=(step == 2) & (car % 2 == 0),
        weights_version=np.full((length, cars), version, np.int32),
    )


def cars_in(replay: Replay) -> set[int]:
    batch = replay.sample(60)
    return set((batch.observation[..., 0] // 100).astype(int).ravel())


def test_every_window_is_a_run_of_consecutive_steps_of_one_car_in_all_fields():
    replay = make_replay()
    replay.insert(make_trajectory(cars=4))
    replay.insert(make_trajectory(cars=3, first_id=4))
    batch = replay.sample(updates=7)
    assert batch.observation.shape == (7, 5, 4, 3)
    assert batch.previous_action.shape == (7, 5, 4, 2)
    leaves = jax.tree.leaves(batch)
    assert all(leaf.shape[:3] == (7, 5, 4) for leaf in leaves)
    dtypes = [np.float32, np.float32, np.float32, np.bool_, np.bool_, np.bool_]
    assert [leaf.dtype for leaf in leaves] == dtypes
    number = batch.observation[..., 0]
    car, step = number // 100, number % 100
    assert (np.diff(step, axis=-1) == 1).all()
    assert (np.diff(car, axis=-1) == 0).all()
    assert (batch.observation == number[..., None]).all()
    assert (batch.previous_action == -number[..., None]).all()
    assert (batch.reward == np.where(step == 3, 0, number)).all()
    assert (batch.is_first == (step == 3)).all()
    assert (batch.is_last == (step == 2)).all()
    assert (batch.is_terminal == ((step == 2) & (car % 2 == 0))).all()


def test_windows_are_drawn_evenly_over_slots_and_starts():
    replay = make_replay()
    replay.insert(make_trajectory(cars=4))
    first = replay.sample(2400).observation[:, :, 0, 0].astype(int)  # 12 kinds, 1000 of each
    kinds, counts = np.unique(first, return_counts=True)
    assert kinds.tolist() == [100 * car + step for car in range(4) for step in range(3)]
    assert np.abs(counts - 1000).max() < 150  # five standard deviations


def test_the_oldest_cars_are_overwritten_when_the_capacity_is_reached():
    replay = make_replay()  # ten slots
    for block in range(4):
        replay.insert(make_trajectory(cars=3, first_id=3 * block))
        assert replay.check_valid() == (True, "")
    assert replay.env_steps_stored == 60
    assert cars_in(replay) == set(range(2, 12))


def test_blocks_may_have_any_number_of_cars():
    replay = make_replay()
    for first_id, cars in ((0, 1), (1, 4), (5, 2), (7, 10)):
        replay.insert(make_trajectory(cars, first_id))
    assert cars_in(replay) == set(range(7, 17))
    with pytest.raises(
        ValueError, match="of 11 cars does not fit into the replay buffer, which has 10 slots"
    ):
        replay.insert(make_trajectory(cars=11))
    with pytest.raises(ValueError, match="of 0 cars does not fit"):
        replay.insert(make_trajectory(cars=0))


def test_a_large_capacity_costs_nothing_until_it_is_used():
    replay = make_replay(capacity_env_steps=5_000_000)
    replay.insert(make_trajectory(cars=4))
    assert sum(array.nbytes for array in replay.state().values()) < 10_000
    assert replay._slots.nbytes() < 10_000


def test_an_inserted_trajectory_may_be_reused_by_its_owner():
    replay = make_replay()
    trajectory = make_trajectory(cars=1)
    replay.insert(trajectory)
    trajectory.observation[:] = np.nan
    assert np.isfinite(replay.sample(9).observation).all()
    replay.sample(9).observation[:] = np.nan
    assert np.isfinite(replay.sample(9).observation).all()


def test_a_window_as_long_as_its_block_fits_and_a_longer_one_is_refused():
    replay = make_replay(batch_length=T)
    replay.insert(make_trajectory(cars=1))
    assert replay.sample(1).reward.shape == (1, 5, T)
    with pytest.raises(ValueError, match="batch_length = 7 exceeds training.block_length = 6"):
        make_replay(batch_length=7)
    with pytest.raises(ValueError, match="capacity_env_steps = 5 is less than one block of 6"):
        make_replay(capacity_env_steps=5)


def test_an_empty_replay_cannot_be_sampled():
    with pytest.raises(ValueError, match="empty replay"):
        make_replay().sample(1)


def test_the_size_and_the_mean_lag_of_what_is_stored_are_reported():
    replay = make_replay()
    empty = {"replay/size_env_steps": 0.0, "replay/age_updates": 0.0}
    assert replay.metrics(current_version=9) == empty
    replay.insert(make_trajectory(cars=8, version=1))
    replay.insert(make_trajectory(cars=4, version=11))  # pushes two of the first out
    expected = {"replay/size_env_steps": 60.0, "replay/age_updates": 20 - (6 * 1 + 4 * 11) / 10}
    assert replay.metrics(current_version=20) == expected


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("observation", np.zeros((T, 2, 4), np.float32), r"\[6, 2, 4\] float32, expected \[6, 2,"),
        ("observation", np.zeros((T, 2), np.float32), r"\[6, 2\] float32, expected \[6, N, 3\]"),
        ("observation", np.zeros((T + 1, 2, 3), np.float32), r"\[7, 2, 3\] .*expected \[6, 2, 3\]"),
        ("previous_action", np.zeros((T, 3, 2), np.float32), r"expected \[6, 2, 2\] float32"),
        ("reward", np.zeros((T, 2)), r"\[6, 2\] float64, expected \[6, 2\] float32"),
        ("is_last", np.zeros((T, 2), np.float32), r"expected \[6, 2\] bool"),
        ("weights_version", np.zeros((T, 2), np.int64), r"expected \[6, 2\] int32"),
    ],
)
def test_a_wrong_shape_or_dtype_is_refused_by_name_and_nothing_is_stored(field, value, message):
    replay = make_replay()
    with pytest.raises(ValueError, match=rf"trajectory\.{field} is .*{message}"):
        replay.insert(make_trajectory(cars=2)._replace(**{field: value}))
    assert replay.env_steps_stored == 0


@pytest.mark.parametrize("field", ["observation", "previous_action", "reward"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_by_name_step_and_car(field, bad):
    replay = make_replay()
    trajectory = make_trajectory(cars=2)
    getattr(trajectory, field)[4, 1] = bad
    with pytest.raises(NonFiniteError, match=rf"{field} is {bad} at step 4 of car 1"):
        replay.insert(trajectory)
    assert replay.env_steps_stored == 0


@pytest.mark.parametrize(
    ("field", "step", "value", "reason"),
    [
        ("is_terminal", 4, True, "step 4: is_terminal but not is_last"),
        ("is_first", 3, False, "step 3: follows is_last but is not is_first"),
        ("is_last", 0, True, "step 1: follows is_last but is not is_first"),
        ("reward", 3, 1.0, "step 3: is_first but has a reward"),
    ],
)
def test_flags_that_contradict_each_other_are_found(field, step, value, reason):
    replay = make_replay()
    replay.insert(make_trajectory(cars=2))
    trajectory = make_trajectory(cars=2)
    getattr(trajectory, field)[step, 1] = value
    replay.insert(trajectory)
    assert replay.check_valid() == (False, f"slot 3, {reason}")


@pytest.mark.parametrize("field", ["observation", "previous_action", "reward"])
def test_corrupted_memory_is_found(field):
    replay = make_replay()
    replay.insert(make_trajectory(cars=2))
    replay._slots._rings[field][1, 5] = np.nan
    assert replay.check_valid() == (False, f"slot 1, step 5: {field} is not finite")


@settings(max_examples=40, deadline=None)
@given(blocks=st.lists(st.integers(1, 10), min_size=1, max_size=12), seed=st.integers(0, 99))
def test_after_any_inserts_the_newest_slots_are_there_and_a_restore_is_exact(blocks, seed):
    replay = make_replay(seed)
    inserted = 0
    for version, cars in enumerate(blocks):
        replay.insert(make_trajectory(cars, inserted, version))
        inserted += cars
        assert replay.check_valid() == (True, "")
    assert replay.env_steps_stored == min(60, inserted * T)
    stored = replay.state()["observation"][:, 0, 0] // 100
    assert set(stored) == set(range(max(0, inserted - 10), inserted))
    replay.sample(1)
    other = make_replay(seed=1234)
    other.insert(make_trajectory(cars=2))
    other.restore(replay.state())
    for one in (replay, other):
        one.insert(make_trajectory(3, inserted, 50))
    assert other.metrics(60) == replay.metrics(60)
    for left, right in zip(replay.sample(3), other.sample(3), strict=True):
        np.testing.assert_array_equal(left, right)


def test_a_state_is_a_snapshot_that_survives_a_save(tmp_path):
    replay = make_replay()
    replay.insert(make_trajectory(cars=10))
    state = replay.state()
    one = checkpoint.save(
        tmp_path, 1, {"a": 1}, config_json="{}", meta={}, extra_files={"replay": state}
    )
    expected = replay.sample(2)
    replay.insert(make_trajectory(cars=9, first_id=50))
    for saved in (state, checkpoint.load_extra(one, "replay")):
        replay.restore(saved)
        for left, right in zip(replay.sample(2), expected, strict=True):
            np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("later", [[], [1], [3, 4], [4, 4], [9, 9, 5]])
def test_a_whole_state_and_the_part_written_since_give_the_present_state(later):
    replay = make_replay()
    replay.insert(make_trajectory(cars=7))
    whole, mark = replay.state(), replay.slots_inserted
    for version, cars in enumerate(later):
        replay.insert(make_trajectory(cars, 20 * version, version))
        replay.sample(1)
    since = replay.state_since(mark)
    assert len(since["reward"]) == min(sum(later), 10)
    other = make_replay(seed=99)
    other.restore(whole, since)
    for name, array in replay.state().items():
        np.testing.assert_array_equal(other.state()[name], array, err_msg=name)


def test_a_part_written_since_another_state_is_refused_and_changes_nothing():
    replay = make_replay()
    replay.insert(make_trajectory(cars=2))
    whole = replay.state()
    replay.insert(make_trajectory(cars=3))
    mark = replay.slots_inserted
    replay.insert(make_trajectory(cars=1))
    other = make_replay()
    with pytest.raises(
        CheckpointError, match="newest 1 slots of the saved replay buffer do not follow"
    ):
        other.restore(whole, replay.state_since(mark))
    assert other.env_steps_stored == 0


def test_the_seed_decides_what_is_sampled():
    batches = []
    for seed in (1, 1, 2):
        replay = make_replay(seed)
        replay.insert(make_trajectory(cars=9))
        batches.append(replay.sample(3).observation)
    assert (batches[0] == batches[1]).all()
    assert (batches[0] != batches[2]).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"capacity_env_steps": 66}, "has 10 slots of 6 steps, but this run has 11"),
        (
            {"observation": np.zeros((2, T, 4), np.float32)},
            r"observation of the saved replay buffer is \[2, 6, 4\] float32",
        ),
        (
            {"rng": np.zeros(5, np.uint64)},
            r"rng of the saved replay buffer is \[5\] uint64, expected \[6\]",
        ),
        ({"reward": None}, "has no reward"),
    ],
)
def test_a_state_of_another_layout_is_refused_and_changes_nothing(change, message):
    source = make_replay()
    source.insert(make_trajectory(cars=2))
    state = source.state()
    settings_ = {name: value for name, value in change.items() if name not in state}
    state |= {name: value for name, value in change.items() if name in state}
    state = {name: value for name, value in state.items() if value is not None}
    replay = make_replay(**settings_)
    replay.insert(make_trajectory(cars=5))
    with pytest.raises(CheckpointError, match=message):
        replay.restore(state)
    assert replay.env_steps_stored == 5 * T
    assert replay.check_valid() == (True, "")


def test_eight_batches_of_sixteen_by_thirty_two_take_less_than_a_millisecond():
    spec = Spec(observation_size=13, action_size=2)
    replay = Replay(ReplayConfig(), spec, block_length=64, seed=0)
    for _ in range(40):
        replay.insert(make_trajectory(cars=16, length=64, spec=spec))
    fastest_s = np.inf
    for _ in range(50):
        start_s = time.perf_counter()
        replay.sample(8)
        fastest_s = min(fastest_s, time.perf_counter() - start_s)
    assert fastest_s < 1e-3
