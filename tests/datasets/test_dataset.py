"""Episodes come back from disk as they were written."""

import subprocess
import sys

import numpy as np
import pytest

from rlcar.config import make_config
from rlcar.config.race import RaceConfig
from rlcar.datasets import Dataset, DatasetWriter, World
from rlcar.datasets.description import describe
from rlcar.errors import DatasetError
from rlcar.types import Spec
from tests.datasets.recorded import (
    PICTURES,
    RACE,
    assert_same,
    make_episode,
    make_pictures,
    write,
)


def test_every_number_comes_back(tmp_path):
    episodes = [make_episode(length, seed) for seed, length in enumerate((7, 1, 30, 12))]
    episodes[1] = episodes[1]._replace(action_logp=None, policy="", source="human")
    read = write(tmp_path / "data", episodes, part_transitions=20)
    assert len(read.parts) == 2
    assert (read.episodes, read.transitions) == (4, 50)
    for before, after in zip(episodes, read.episodes_iter(), strict=True):
        assert_same(before, after)


def test_images_and_discrete_actions_come_back(tmp_path):
    episodes = [make_pictures(length, length) for length in (4, 9)]
    read = write(tmp_path / "data", episodes, PICTURES)
    assert read.spec == PICTURES.spec
    assert read.moments is None
    for before, after in zip(episodes, read.episodes_iter(), strict=True):
        assert_same(before, after)


def test_a_seed_shuffles_parts_and_episodes_and_repeats_itself(tmp_path):
    read = write(
        tmp_path / "data", [make_episode(4, seed) for seed in range(20)], part_transitions=16
    )
    orders = [
        [episode.reward[0] for episode in read.episodes_iter(seed)] for seed in (1, 1, 2, None)
    ]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert orders[0] != orders[3]
    assert sorted(orders[0]) == sorted(orders[3])


def test_what_is_skipped_is_not_read_and_changes_no_order(tmp_path):
    episodes = [make_episode(length, seed) for seed, length in enumerate((7, 1, 30, 12, 5, 9))]
    data = write(tmp_path / "data", episodes, part_transitions=20)
    assert len(data.parts) == 2
    whole = [episode.reward[0] for episode in data.episodes_iter(seed=3)]
    for skip in range(len(whole) + 1):
        rest = [episode.reward[0] for episode in data.episodes_iter(seed=3, skip=skip)]
        assert rest == whole[skip:]
    for part in data.parts[:-1]:
        (data.folder / part.name).unlink()
    last = data.parts[-1]
    kept = list(data.episodes_iter(skip=data.episodes - last.episodes))
    assert len(kept) == last.episodes


def test_moments_are_those_of_all_observations(tmp_path):
    episodes = [make_episode(5 + seed, seed) for seed in range(9)]
    read = write(tmp_path / "data", episodes, part_transitions=11)
    observations = np.concatenate([episode.observation for episode in episodes]).astype(np.float64)
    assert read.moments.observations == len(observations)
    np.testing.assert_allclose(read.moments.mean, observations.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(
        read.moments.standard_deviation, observations.std(axis=0), rtol=1e-12
    )


def test_a_writer_continues_after_the_last_complete_part(tmp_path):
    episodes = [make_episode(10, seed) for seed in range(6)]
    whole = write(tmp_path / "whole", episodes, part_transitions=20)
    folder = tmp_path / "data"
    write(folder, episodes[:4], part_transitions=20)
    (folder / ".writing-left-behind").write_text("half a part")
    (folder / "part-00002.parquet").write_text("a part that was never listed")
    read = write(folder, episodes[4:], part_transitions=20, resume=True)
    assert read.fingerprint == whole.fingerprint
    assert not (folder / ".writing-left-behind").exists()


def test_an_exception_loses_no_complete_episode(tmp_path):
    def record():
        with DatasetWriter(tmp_path / "data", RACE) as writer:
            writer.append(make_episode(10))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record()
    assert Dataset.open(tmp_path / "data").transitions == 10


def test_a_description_that_cannot_be_written_stores_no_episode_twice(tmp_path):
    with DatasetWriter(tmp_path, RACE, part_transitions=100) as writer:
        writer.append(make_episode(10))
        description = tmp_path / "dataset.json"
        description.unlink()
        description.mkdir()
        with pytest.raises(DatasetError, match=r"cannot write .*dataset.json"):
            writer.flush()
        description.rmdir()
        writer.append(make_episode(20, 1))
    data = Dataset.open(tmp_path)
    assert [episode.transitions for episode in data.episodes_iter()] == [10, 20]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": np.array([0, np.nan, 0])}, "episode 0, step 1: the reward contains nan"),
        ({"action": np.full((3, 2), 1.5)}, "step 0: the action contains 1.5, outside of -1 to 1"),
        ({"action": np.zeros((3, 1))}, r"actions of the shape \(3, 1\) in place of \(3, 2\)"),
        ({"is_terminal": False, "is_truncated": False}, "has no end"),
        ({"source": "cat"}, "source 'cat': it must be one of model, hold, fallback, human"),
    ],
)
def test_an_invalid_episode_is_refused(tmp_path, changes, message):
    writer = DatasetWriter(tmp_path / "data", RACE)
    with pytest.raises(DatasetError, match=message):
        writer.append(make_episode(3, **changes))


def test_a_data_set_is_not_overwritten(tmp_path):
    write(tmp_path, [make_episode(3)])
    with pytest.raises(DatasetError, match="already holds a data set"):
        DatasetWriter(tmp_path, RACE)


def test_two_writers_at_once_are_refused(tmp_path):
    with DatasetWriter(tmp_path, RACE) as writer:
        writer.append(make_episode(3))
        with pytest.raises(DatasetError, match="another process writes into"):
            DatasetWriter(tmp_path, RACE, resume=True)
    assert Dataset.open(tmp_path).transitions == 3
    with DatasetWriter(tmp_path, RACE, resume=True) as writer:
        writer.append(make_episode(4))
    assert Dataset.open(tmp_path).transitions == 7


def test_another_world_is_refused(tmp_path):
    write(tmp_path, [make_episode(3)])
    other = describe(World(race=RaceConfig(laps=2)), Spec(6, 2))
    with pytest.raises(DatasetError, match=r"another world \(race\).*race.laps is 1 and not 2"):
        DatasetWriter(tmp_path, other, resume=True)


def test_a_known_race_has_its_name_and_a_changed_one_has_none():
    assert World.of_config(make_config(world="grand-prix")).name == "grand-prix"
    changed = make_config(world="grand-prix", overrides=["race.laps=7"])
    assert World.of_config(changed).name == ""
    pendulum = World.of_config(make_config(environment="Pendulum-v1"))
    assert (pendulum.race, pendulum.label) == (None, "Pendulum-v1")
    assert pendulum.first_difference(World.of_config(changed)) is None


def test_a_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DatasetError, match=r"holds notes.txt and is no data set"):
        DatasetWriter(tmp_path, RACE)


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(DatasetError, match="is empty: record a data set"):
        Dataset.open(tmp_path)


def test_a_part_that_is_cut_off_is_named(tmp_path):
    write(tmp_path, [make_episode(50)])
    part = tmp_path / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(DatasetError, match=r"part-00000.parquet is cut off"):
        Dataset.open(tmp_path)


_PEAK = """
import resource, sys
from pathlib import Path
import subprocess
import sys

import numpy as np
from rlcar.config.race import RaceConfig
from rlcar.datasets import Dataset, DatasetWriter, Episode, World
from rlcar.datasets.description import describe
from rlcar.datasets.validation import validate
from rlcar.types import Spec

folder, episodes = Path(sys.argv[1]), int(sys.argv[2])
random = np.random.default_rng(0)
with DatasetWriter(folder, describe(World(race=RaceConfig()), Spec(6, 2))) as writer:
    for number in range(episodes):
        writer.append(Episode(
            random.random((1001, 6), np.float32), random.random((1000, 2), np.float32),
            random.random(1000, np.float32), True, False, random.random(1000, np.float32), "one",
        ))
assert sum(len(episode.reward) for episode in Dataset.open(folder).episodes_iter(seed=0)) == (
    1000 * episodes
)
assert list(validate(folder)) == []
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_data(tmp_path):
    """Writing, reading and checking 1.3 million transitions needs the memory of 200,000."""

    def peak_mib(episodes):
        program = [sys.executable, "-c", _PEAK, tmp_path / str(episodes), str(episodes)]
        done = subprocess.run(program, capture_output=True, text=True, check=True)
        return float(done.stdout)

    assert peak_mib(1_300) - peak_mib(200) < 60
