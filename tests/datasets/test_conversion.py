"""Data sets become those of other tools and come back with every number."""

import os
import pickle
import re

import gymnasium
import h5py
import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

import rlcar.sim
from rlcar.datasets import Dataset, World, d4rl
from rlcar.datasets.combine import merge, split
from rlcar.datasets.d4rl import FlatRecording, joined, open_flat
from rlcar.datasets.description import describe
from rlcar.datasets.importing import import_recording
from rlcar.datasets.minari_format import MinariRecording, export_minari
from rlcar.errors import DatasetError
from rlcar.registry.pickled import read_recording
from tests.datasets.recorded import PICTURES, RACE, assert_same, make_episode, make_pictures, write


@pytest.fixture
def episodes():
    return [make_episode(length, seed) for seed, length in enumerate((5, 1, 12, 9))]


def back_from_minari(source, folder):
    recording = MinariRecording(source)
    return import_recording(recording, folder, recording.description(), source)


def test_minari_gives_back_every_number(tmp_path, episodes):
    episodes[1] = episodes[1]._replace(action_logp=None, policy="", source="human")
    data = write(tmp_path / "data", episodes, part_transitions=8)
    exported = export_minari(data, "rlcar/classic-v0", tmp_path / "minari")
    back = back_from_minari(exported, tmp_path / "back")
    assert back.world.is_same(data.world)
    for before, after in zip(episodes, back.episodes_iter(), strict=True):
        assert_same(before, after)


def test_minari_gives_back_images_without_loss(tmp_path):
    episodes = [make_pictures(3), make_pictures(5, 1)]
    data = write(tmp_path / "data", episodes, PICTURES)
    exported = export_minari(data, "rlcar/pictures-v0", tmp_path / "minari")
    for before, after in zip(
        episodes, back_from_minari(exported, tmp_path / "back").episodes_iter(), strict=True
    ):
        assert_same(before, after)


def test_minari_itself_reads_an_export(tmp_path, episodes, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    export_minari(write(tmp_path / "data", episodes), "rlcar/classic-v0")
    read = minari.load_dataset("rlcar/classic-v0")
    assert (read.total_episodes, read.total_steps) == (4, 27)
    for before, after in zip(episodes, read.iterate_episodes(), strict=True):
        np.testing.assert_array_equal(before.observation, after.observations)
        np.testing.assert_array_equal(before.action_logp, after.infos["action_logp"][:-1])
        assert after.terminations[-1] == before.is_terminal


def test_minaris_log_probabilities_are_those_of_the_scaled_actions(tmp_path):
    storage = MinariStorage.new(
        tmp_path / "data",
        gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32),
        gymnasium.spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 3.0], np.float32)),
        data_format="hdf5",
    )
    uniform = np.full(5, -np.log(4.0 * 3.0), np.float32)
    ends = np.arange(4) == 3
    storage.update_metadata({"dataset_id": "scaled-v0", "minari_version": minari.__version__})
    episode = EpisodeBuffer(
        id=0,
        observations=np.zeros((5, 3), np.float32),
        actions=np.tile(np.array([1.0, 0.75], np.float32), (4, 1)),
        rewards=np.ones(4),
        terminations=ends,
        truncations=np.zeros(4, bool),
        infos={"action_logp": uniform},
    )
    storage.update_episodes([episode])
    (read,) = MinariRecording(tmp_path).episodes()
    np.testing.assert_allclose(read.action, np.tile([0.5, -0.5], (4, 1)), atol=1e-6)
    np.testing.assert_allclose(read.action_logp, -np.log(4.0), rtol=1e-6)  # uniform in [-1, 1]


# Minari warns that no author is named, and its collector removes its temporary folder late.
@pytest.mark.filterwarnings("ignore::UserWarning:minari", "ignore::ResourceWarning")
def test_minaris_collector_records_the_race_and_the_recording_is_imported(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    env = minari.DataCollector(gymnasium.make(rlcar.sim.ENVIRONMENT_ID), record_infos=True)
    env.action_space.seed(0)
    steps = 0
    for seed in range(2):
        observation, _ = env.reset(seed=seed)
        is_over = False
        while not is_over:  # steers so well that a lap ends and reports its time
            left = 4.0 * (observation[3] + observation[4] - observation[0] - observation[1])
            action = np.array([np.clip(left, -1, 1), 1.0], np.float32)
            observation, _, terminated, truncated, info = env.step(action)
            is_over = terminated or truncated
            steps += 1
        assert info["lap_time"] > 0
    dataset = env.create_dataset("rlcar/collected-v0")
    env.close()
    data = back_from_minari(tmp_path / "minari" / "rlcar" / "collected-v0", tmp_path / "back")
    assert (data.episodes, data.transitions) == (2, steps)
    for before, after in zip(dataset.iterate_episodes(), data.episodes_iter(), strict=True):
        np.testing.assert_array_equal(before.observations, after.observation)
        np.testing.assert_array_equal(before.actions, after.action)
        np.testing.assert_array_equal(before.rewards.astype(np.float32), after.reward)


def test_metadata_that_names_no_spaces_runs_no_code(tmp_path):
    (tmp_path / "metadata.json").write_text(
        '{"env_spec": "{\\"id\\": \\"os:system\\"}", "data_format": "hdf5", "total_steps": 1}'
    )
    with pytest.raises(DatasetError, match="does not describe the spaces"):
        MinariRecording(tmp_path)


def flat_arrays(episodes, *, with_next):
    arrays = {
        "observations": np.concatenate([episode.observation[:-1] for episode in episodes]),
        "actions": np.concatenate([episode.action for episode in episodes]),
        "rewards": np.concatenate([episode.reward for episode in episodes]),
        "infos/action_log_probs": np.concatenate([episode.action_logp for episode in episodes]),
    }
    for key in ("terminals", "timeouts"):
        arrays[key] = np.zeros(len(arrays["rewards"]), bool)
    ends = np.cumsum([episode.transitions for episode in episodes]) - 1
    arrays["terminals"][ends] = [episode.is_terminal for episode in episodes]
    arrays["timeouts"][ends] = [episode.is_truncated for episode in episodes]
    if with_next:
        arrays["next_observations"] = np.concatenate(
            [episode.observation[1:] for episode in episodes]
        )
    return arrays


def write_hdf5(path, arrays):
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            file[key] = array


def write_pickle(path, arrays):
    path.write_bytes(pickle.dumps(arrays))


def from_file(path, folder):
    description = describe(World(name="d4rl"), PICTURES.spec)
    if path.suffix == ".pkl":
        recording = FlatRecording(read_recording(path), str(path), 1.0)
        description = describe(World(name="d4rl"), recording.spec)
        return import_recording(recording, folder, description, path)
    with open_flat(path, 1.0) as recording:
        description = describe(World(name="d4rl"), recording.spec)
        return import_recording(recording, folder, description, path)


@pytest.mark.parametrize(
    ("name", "writer"),
    [
        ("flat.hdf5", write_hdf5),
        ("flat.npz", lambda path, arrays: np.savez(path, **arrays)),
        ("flat.pkl", write_pickle),
    ],
)
def test_d4rls_layout_gives_back_every_number(tmp_path, episodes, name, writer):
    episodes = [episode._replace(policy="") for episode in episodes]
    writer(tmp_path / name, flat_arrays(episodes, with_next=True))
    data = from_file(tmp_path / name, tmp_path / "back")
    for before, after in zip(episodes, data.episodes_iter(), strict=True):
        assert_same(before, after)


def test_without_next_observations_a_cut_episode_ends_one_action_earlier(tmp_path, episodes):
    np.savez(tmp_path / "flat.npz", **flat_arrays(episodes, with_next=False))
    data = from_file(tmp_path / "flat.npz", tmp_path / "back")
    # The second episode is one step long and cut off, so nothing of it is left.
    lengths = [(episode.transitions, episode.is_terminal) for episode in data.episodes_iter()]
    assert lengths == [(5, True), (12, True), (8, False)]
    first = next(data.episodes_iter())
    np.testing.assert_array_equal(first.observation[-1], episodes[0].observation[-2])


@pytest.mark.parametrize("rows_at_a_time", [65_536, 1, 4, 5])
def test_a_jump_to_another_observation_ends_an_episode(episodes, monkeypatch, rows_at_a_time):
    monkeypatch.setattr(d4rl, "_ROWS", rows_at_a_time)
    arrays = flat_arrays(episodes, with_next=True)
    del arrays["timeouts"]
    found = FlatRecording(arrays, "flat.npz", 1.0).episodes()
    for before, after in zip(episodes, found, strict=True):
        assert_same(before._replace(policy=""), after)


def test_a_recording_that_does_not_show_its_cuts_is_refused(episodes):
    arrays = flat_arrays(episodes, with_next=False)
    del arrays["timeouts"]
    with pytest.raises(DatasetError, match="neither 'timeouts' nor 'next_observations'"):
        FlatRecording(arrays, "flat.npz", 1.0)


def test_next_observations_of_another_shape_are_refused(episodes):
    arrays = flat_arrays(episodes, with_next=True)
    arrays["next_observations"] = arrays["next_observations"][:, :4]
    with pytest.raises(DatasetError, match=r"'next_observations' has the shape \(27, 4\), but"):
        FlatRecording(arrays, "flat.npz", 1.0)


def test_the_log_probabilities_of_scaled_actions_are_scaled(episodes):
    arrays = flat_arrays(episodes, with_next=True)
    arrays["actions"] = arrays["actions"] * 4.0
    for before, after in zip(
        episodes, FlatRecording(arrays, "flat.npz", 4.0).episodes(), strict=True
    ):
        np.testing.assert_allclose(after.action, before.action, rtol=1e-6)
        expected = before.action_logp + 2 * np.log(4.0)  # of two numbers
        np.testing.assert_allclose(after.action_logp, expected, rtol=1e-6)


def test_a_pickled_list_of_episodes_is_read(tmp_path, episodes):
    keys = ("observations", "next_observations", "actions", "rewards", "terminals")
    parts = [
        {key: flat_arrays([episode], with_next=True)[key] for key in keys} for episode in episodes
    ]
    write_pickle(tmp_path / "list.pkl", parts)
    recording = FlatRecording(joined(read_recording(tmp_path / "list.pkl"), "list.pkl"), "", 1.0)
    for before, after in zip(episodes, recording.episodes(), strict=True):
        assert_same(before._replace(action_logp=None, policy=""), after)


class _Command:
    def __init__(self, canary):
        self._canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self._canary}",)


def test_a_pickle_that_would_execute_code_is_refused(tmp_path):
    write_pickle(tmp_path / "bad.pkl", {"observations": _Command(tmp_path / "canary")})
    with pytest.raises(DatasetError, match=r"bad.pkl is refused: it asks for posix.system"):
        read_recording(tmp_path / "bad.pkl")
    assert not (tmp_path / "canary").exists()


def test_an_npz_with_objects_is_refused(tmp_path):
    np.savez(tmp_path / "bad.npz", observations=np.array([_Command(tmp_path / "canary")]))
    with pytest.raises(DatasetError, match="holds an array of objects, which could execute code"):
        from_file(tmp_path / "bad.npz", tmp_path / "back")
    assert not (tmp_path / "canary").exists()


def test_a_missing_array_is_named(tmp_path, episodes):
    arrays = flat_arrays(episodes, with_next=False)
    del arrays["rewards"]
    np.savez(tmp_path / "flat.npz", **arrays)
    with pytest.raises(DatasetError, match="has no array 'rewards', so it is not in D4RL's layout"):
        from_file(tmp_path / "flat.npz", tmp_path / "back")


def test_a_nan_in_an_import_is_named_and_nothing_is_left(tmp_path, episodes):
    arrays = flat_arrays(episodes, with_next=True)
    arrays["rewards"][7] = np.nan
    np.savez(tmp_path / "flat.npz", **arrays)
    with pytest.raises(DatasetError, match="episode 2, step 1: the reward contains nan"):
        from_file(tmp_path / "flat.npz", tmp_path / "back")
    assert [path.name for path in tmp_path.iterdir()] == ["flat.npz"]


def test_observations_of_another_world_are_refused(tmp_path, episodes):
    arrays = flat_arrays(episodes, with_next=True)
    arrays["observations"] = arrays["observations"][:, :4]
    arrays["next_observations"] = arrays["next_observations"][:, :4]
    recording = FlatRecording(arrays, "flat.npz", 1.0)
    message = "has observations of 4 numbers and 2 numbers as an action, but race has observations"
    with pytest.raises(DatasetError, match=message):
        import_recording(recording, tmp_path / "back", RACE, tmp_path / "flat.npz")


def test_a_merge_holds_all_episodes_and_refuses_repetitions(tmp_path, episodes):
    first = write(tmp_path / "first", episodes[:2])
    second = write(tmp_path / "second", episodes[2:])
    merged = merge([first, second], tmp_path / "both")
    for before, after in zip(episodes, merged.episodes_iter(), strict=True):
        assert_same(before, after)
    assert merged.description.origins == [first.fingerprint, second.fingerprint]
    with pytest.raises(DatasetError, match="holds the same episodes as"):
        merge([first, first], tmp_path / "twice")
    other = write(tmp_path / "other", [make_pictures(3)], PICTURES)
    with pytest.raises(DatasetError, match="another world"):
        merge([first, other], tmp_path / "mixed")


def test_a_split_deals_out_every_episode_once(tmp_path):
    episodes = [make_episode(3 + seed % 5, seed) for seed in range(40)]
    data = write(tmp_path / "data", episodes)
    parts = split(data, [tmp_path / "train", tmp_path / "test"], [0.9, 0.1], seed=1)
    assert [part.episodes for part in parts] == [36, 4]
    assert all(part.description.origins == [data.fingerprint] for part in parts)
    found = [episode.reward[0] for part in parts for episode in part.episodes_iter()]
    assert sorted(found) == sorted(episode.reward[0] for episode in episodes)
    again = split(data, [tmp_path / "train2", tmp_path / "test2"], [0.9, 0.1], seed=1)
    assert [part.fingerprint for part in parts] == [part.fingerprint for part in again]


FLAT = {
    "observations": np.random.default_rng(0).random((40, 6), np.float32),
    "actions": np.random.default_rng(1).uniform(-1, 1, (40, 2)).astype(np.float32),
    "rewards": np.arange(40, dtype=np.float32),
    "terminals": np.arange(40) == 19,
    "timeouts": np.arange(40) == 39,
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": np.float32(1.0)}, r"'rewards' has the shape \(\): it must be \[steps\]"),
        ({"rewards": np.ones((40, 2))}, r"'rewards' has the shape \(40, 2\): it must be"),
        ({"rewards": np.zeros(40, "M8[s]")}, r"'rewards' is datetime64\[s\], not real numbers"),
        ({"observations": np.ones((40, 6), complex)}, "'observations' is complex128, not real"),
        ({"observations": np.full((40, 6), "x")}, "'observations' is <U1, not real numbers"),
        ({"observations": np.ones((40, 0))}, "observations of 0 numbers .* at least one number"),
        ({"actions": np.ones((40, 0))}, "0 numbers as an action: there must be at least one"),
        ({"actions": -np.ones(40, int)}, "indices from -1 to -1: they must lie between 0 and"),
        ({"actions": np.full(40, 1 << 40)}, "indices from 1099511627776 to .* 65535"),
        ({"actions": np.full((40, 2), 3.0)}, "step 0: the action contains 3.0, outside of -1 to 1"),
        ({"terminals": np.full(40, np.nan)}, "row 0: 'terminals' contains nan: it must be 0 or 1"),
        ({"rewards": np.full(40, 1e300)}, "step 0: the reward contains inf: remove the episode"),
        ({name: array[:0] for name, array in FLAT.items()}, "has no steps"),
    ],
)
def test_arrays_that_are_no_recording_are_refused_in_one_sentence(rlcar, changes, message):
    np.savez("bad.npz", **FLAT | changes)
    code, _, said = rlcar("data", "import", "bad.npz", "data")
    assert code == 2
    (sentence,) = [line for line in said.splitlines() if line]
    assert re.search(message, sentence), sentence
    assert sorted(os.listdir()) == ["bad.npz"]


def test_big_endian_and_float64_arrays_are_read(rlcar):
    np.savez("large.npz", **{name: np.asarray(FLAT[name], ">f8") for name in FLAT})
    np.savez("small.npz", **FLAT)
    for name in ("large", "small"):
        assert rlcar("data", "import", f"{name}.npz", name)[0] == 0
    large, small = (Dataset.open(name) for name in ("large", "small"))
    for one, other in zip(large.episodes_iter(), small.episodes_iter(), strict=True):
        assert_same(one, other)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("a.npz", lambda path: path.write_bytes(b"no archive"), "is no complete npz file"),
        ("a.npz", lambda path: path.write_bytes(b"\x93NUMPY\x01\x00"), "is no complete npz file"),
        ("a.npz", os.mkfifo, "it is a FIFO, not a regular file"),
        ("a.hdf5", os.mkfifo, "it is a FIFO, not a regular file"),
        ("a.hdf5", lambda path: path.write_bytes(b"no HDF5"), "is not an HDF5 file"),
        ("a.pkl", os.mkfifo, "it is a FIFO, not a regular file"),
        ("a.pkl", lambda path: path.write_bytes(b"no pickle"), "is not a complete pickle"),
    ],
)
def test_a_file_that_is_none_of_its_kind_is_refused_at_once(rlcar, tmp_path, name, make, message):
    make(tmp_path / name)
    code, _, said = rlcar("data", "import", name, "data")
    assert (code, len(said.strip().splitlines())) == (2, 1)
    assert message in said
