"""A data set of a limited size keeps its newest episodes, and is sound at any time."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlcar.datasets import Dataset, DatasetWriter
from rlcar.datasets.combine import merge
from rlcar.datasets.description import describe
from rlcar.datasets.rotation import Rotation
from rlcar.datasets.summary import summarise
from rlcar.datasets.validation import validate
from rlcar.errors import DatasetError
from rlcar.sim import SPEC
from tests.support.recordings import RACE, random_episode

LIMIT = Rotation(60_000)


def _write(folder, numbers, *, resume=False, steps=50):
    """Writes one episode for each number, which becomes its first reward; flushes each."""
    rng = np.random.default_rng(numbers[0])
    with DatasetWriter(folder, describe(RACE, SPEC), resume=resume, rotation=LIMIT) as writer:
        for number in numbers:
            episode = random_episode(rng, SPEC, steps)
            episode.reward[0] = number
            writer.append(episode)
            writer.flush()
            assert sum(path.stat().st_size for path in folder.glob("part-*")) <= 60_000


def _numbers(folder):
    return [int(episode.reward[0]) for episode in Dataset.open(folder).episodes_iter()]


def test_the_oldest_episodes_make_room_for_new_ones(tmp_path):
    _write(tmp_path, range(24))
    kept = _numbers(tmp_path)
    assert kept == list(range(kept[0], 24))
    assert 3 < len(kept) < 24
    assert list(validate(tmp_path)) == []


def test_small_parts_are_joined(tmp_path):
    _write(tmp_path, range(12), steps=5)
    assert len(list(tmp_path.glob("*.parquet"))) < 4
    assert _numbers(tmp_path) == list(range(12))


def test_a_data_set_goes_on_after_a_rotation(tmp_path):
    _write(tmp_path, range(24))
    _write(tmp_path, range(24, 28), resume=True)
    kept = _numbers(tmp_path)
    assert kept == list(range(kept[0], 28))
    assert list(validate(tmp_path)) == []


@pytest.mark.parametrize("steps", [5, 50])
def test_a_reader_that_opened_a_recording_reads_all_of_it(tmp_path, steps):
    """Short episodes are joined with the last part; with long ones the oldest parts go."""
    opened, expected = None, []
    rng = np.random.default_rng(0)
    with DatasetWriter(tmp_path, describe(RACE, SPEC), rotation=LIMIT) as writer:
        for number in range(24):
            episode = random_episode(rng, SPEC, steps)
            episode.reward[0] = number
            writer.append(episode)
            writer.flush()
            if opened is not None:
                assert [int(one.reward[0]) for one in opened.episodes_iter()] == expected
            opened, expected = Dataset.open(tmp_path), _numbers(tmp_path)
            listed = {part.name for part in opened.parts}
            assert {path.name for path in tmp_path.glob("*.parquet")} == listed


def test_a_damaged_part_is_joined_with_nothing(tmp_path):
    """Otherwise its content would get a new checksum, and count as sound."""
    _write(tmp_path, [0], steps=5)
    path = tmp_path / "part-00000.parquet"
    table = pq.read_table(path)
    index = table.column_names.index("rewards")
    changed = table.set_column(index, table.field("rewards"), pa.array([7.0] * 5, pa.float32()))
    pq.write_table(changed, path)
    _write(tmp_path, [1], resume=True, steps=5)
    (problem,) = validate(tmp_path)
    assert problem.startswith("part-00000.parquet (part 1 of 2): ")
    assert " has changed: " in problem or " is cut off: " in problem


def test_what_a_killed_writer_left_is_no_fault_and_is_deleted(tmp_path):
    _write(tmp_path, range(24))
    (tmp_path / "part-00000.parquet").write_bytes(b"deleted from the list, but not yet")
    last = max(path.name for path in tmp_path.glob("part-*"))
    following = tmp_path / f"part-{int(last[5:10]) + 1:05d}.parquet"
    following.write_bytes(b"not yet listed")
    assert list(validate(tmp_path)) == []
    _write(tmp_path, [24], resume=True)
    assert not (tmp_path / "part-00000.parquet").exists()
    assert _numbers(tmp_path)[-1] == 24


def test_each_step_may_have_a_driver_of_its_own(tmp_path):
    episode = random_episode(np.random.default_rng(0), SPEC, 4)
    sources = np.array(["model", "hold", "human", "model"], dtype=object)
    policies = np.array(["version-1", "version-1", "version-2", "version-2"], dtype=object)
    episode = episode._replace(source=sources, policy=policies)
    with DatasetWriter(tmp_path / "first", describe(RACE, SPEC)) as writer:
        writer.append(episode)
    merged = merge([Dataset.open(tmp_path / "first")], tmp_path / "second")
    (found,) = merged.episodes_iter()
    assert found.source.tolist() == sources.tolist()
    assert found.policy.tolist() == policies.tolist()
    (driver,) = summarise(merged)["drivers"]
    assert driver["source"] == "hold + human + model"
    assert driver["policy"] == "version-1 + version-2"


def test_an_unknown_source_of_a_step_is_named(tmp_path):
    episode = random_episode(np.random.default_rng(0), SPEC, 2)
    episode = episode._replace(source=np.array(["model", "cat"], dtype=object))
    with (
        DatasetWriter(tmp_path, describe(RACE, SPEC)) as writer,
        pytest.raises(DatasetError, match="source 'cat': it must be one of model"),
    ):
        writer.append(episode)
