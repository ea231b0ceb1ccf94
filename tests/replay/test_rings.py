"""A replay buffer gives the same data if its slots lie in shards or on a device."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlcar.config import ReplayConfig
from rlcar.errors import ConfigError
from rlcar.replay import Replay, Rings, ShardedRings, capacity_in_slots
from rlcar.replay.device_rings import DeviceRings
from rlcar.replay.rings import row_bytes
from rlcar.storage import checkpoint
from rlcar.types import Spec, Trajectory

SPEC = Spec(observation_size=3, action_size=2, image_shape=(4, 4, 3))
IMAGES_ALONE = SPEC._replace(observation_size=0)
T = 6
CONFIG = ReplayConfig(capacity_env_steps=66, min_env_steps=1, batch_size=5, batch_length=4)


def in_process(shards, spec=SPEC):
    """Returns shards in this process and the function that calls them."""
    rings = [Rings(spec, T, -(-capacity_in_slots(CONFIG, T) // shards)) for _ in range(shards)]
    return rings, lambda calls: [
        getattr(rings[one.shard], one.method)(*one.arguments) for one in calls
    ]


def make_replay(shards=0, spec=SPEC):
    """Returns slots in `shards` shards of this process, or on JAX's device for "device"."""
    slots = None
    if shards == "device":
        slots = DeviceRings(spec, T, capacity_in_slots(CONFIG, T))
    elif shards:
        slots = ShardedRings(spec, T, shards, in_process(shards, spec)[1])
    return Replay(CONFIG, spec, T, seed=3, slots=slots)


def make_trajectory(cars, version):
    rng = np.random.default_rng(version)
    ends = rng.random((T, cars)) < 0.2
    first = np.zeros_like(ends)
    first[1:] = ends[:-1]
    return Trajectory(
        observation=rng.normal(size=(T, cars, 3)).astype(np.float32),
        previous_action=rng.normal(size=(T, cars, 2)).astype(np.float32),
        reward=np.where(first, 0.0, rng.normal(size=(T, cars))).astype(np.float32),
        is_first=first,
        is_last=ends,
        is_terminal=ends & (rng.random((T, cars)) < 0.5),
        weights_version=np.full((T, cars), version, np.int32),
        image=rng.integers(256, size=(T, cars, 4, 4, 3), dtype=np.uint8),
    )


def assert_same(left, right):
    for one, other in zip(left, right, strict=True):
        if one is other is None:  # no agent with a carry
            continue
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@settings(max_examples=30, deadline=None)
@given(
    shards=st.one_of(st.integers(1, 4), st.just("device")),
    blocks=st.lists(st.integers(1, 11), min_size=1, max_size=8),
)
def test_shards_and_a_device_give_the_same_batches_as_one_process(shards, blocks):
    whole, sharded = make_replay(), make_replay(shards)
    for version, cars in enumerate(blocks):
        for replay in (whole, sharded):
            replay.insert(make_trajectory(cars, version))
        batch = sharded.sample(3)
        assert all(isinstance(x, jax.Array) == (shards == "device") for x in jax.tree.leaves(batch))
        assert_same(whole.sample(3), batch)
    assert_same(whole.all_blocks(), sharded.all_blocks())
    assert sharded.metrics(99) == whole.metrics(99)
    assert sharded.check_valid() == whole.check_valid() == (True, "")


@pytest.mark.parametrize(
    ("before", "after"), [(0, 3), (3, 0), (2, 4), (0, "device"), ("device", 0), ("device", 2)]
)
def test_a_checkpoint_does_not_depend_on_where_the_slots_lay(tmp_path, monkeypatch, before, after):
    monkeypatch.setattr(
        "rlcar.replay.rings._PART_BYTES", 700
    )  # so that the checkpoint is written in many parts
    monkeypatch.setattr("rlcar.replay.buffer._ROWS_AT_ONCE", 3)
    monkeypatch.setattr("rlcar.replay.device_rings._ROWS", 4)
    source = make_replay(before)
    source.insert(make_trajectory(7, 0))
    mark, saves = source.slots_inserted, []
    states = [source.state]
    states.append(lambda: source.state_since(mark))
    for env_steps, state in enumerate(states, start=1):
        saves.append(
            checkpoint.save(
                tmp_path, env_steps, {}, config_json="{}", meta={}, extra_files={"replay": state()}
            )
        )
        source.insert(make_trajectory(6, env_steps))
    states = [checkpoint.map_extra(save, "replay") for save in saves]
    target = make_replay(after)
    target.restore(states[0])
    assert target.env_steps_stored == 7 * T
    again = make_replay()
    again.insert(make_trajectory(7, 0))
    assert_same(again.sample(2), target.sample(2))
    again.insert(make_trajectory(6, 1))
    target.restore(*states)
    fresh = make_replay()
    fresh.restore(fresh_state := again.state() | {"rng": np.asarray(states[1]["rng"])})
    assert fresh_state["reward"].shape[0] == 11
    assert_same(fresh.sample(2), target.sample(2))


@pytest.mark.parametrize("spec", [SPEC, IMAGES_ALONE])
def test_a_checkpoint_written_in_parts_equals_one_written_at_once(tmp_path, monkeypatch, spec):
    monkeypatch.setattr("rlcar.replay.rings._PART_BYTES", 700)
    trajectory = make_trajectory(9, 1)
    if not spec.observation_size:
        trajectory = trajectory._replace(observation=np.zeros((T, 9, 0), np.float32))
    files = []
    for shards in (0, 3, "device"):
        replay = make_replay(shards, spec)
        replay.insert(trajectory)
        save = checkpoint.save(
            tmp_path / str(shards),
            1,
            {},
            config_json="{}",
            meta={},
            extra_files={"replay": replay.state()},
        )
        files.append((save.path / "replay.safetensors").read_bytes())
    assert files[0] == files[1] == files[2]


def test_shards_share_the_memory_evenly():
    rings, ask = in_process(3)
    replay = Replay(CONFIG, SPEC, T, seed=0, slots=ShardedRings(SPEC, T, 3, ask))
    replay.insert(make_trajectory(11, 0))
    assert [one.nbytes() // row_bytes(SPEC, T) for one in rings] == [4, 4, 3]


def test_a_device_with_too_little_memory_is_one_sentence():
    with pytest.raises(
        ConfigError, match=r"cannot allocate the 9\.48e\+03 GB .* lower replay.capacity"
    ):
        DeviceRings(SPEC, T, 20_000_000_000)
