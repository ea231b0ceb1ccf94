"""Every fault is one sentence that names file, episode and step."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlcar.config.race import RaceConfig
from rlcar.datasets import Dataset, DatasetWriter, Episode, World
from rlcar.datasets.description import describe
from rlcar.datasets.summary import summarise
from rlcar.datasets.validation import validate
from rlcar.errors import DatasetError
from rlcar.system.durable import checksum
from rlcar.types import Spec
from tests.support.recordings import random_episode, record

PARTS, EPISODES, STEPS = 7, 3, 10
RACE = World(name="a race")


@pytest.fixture
def folder(tmp_path):
    """A data set of seven parts of three episodes of ten steps each."""
    random = np.random.default_rng(0)
    with DatasetWriter(
        tmp_path / "data", describe(RACE, Spec(4, 2)), part_transitions=EPISODES * STEPS
    ) as writer:
        for number in range(PARTS * EPISODES):
            writer.append(
                Episode(
                    random.normal(size=(STEPS + 1, 4)).astype(np.float32),
                    random.uniform(-1, 1, (STEPS, 2)).astype(np.float32),
                    random.normal(size=STEPS).astype(np.float32),
                    number % 2 == 0,
                    number % 2 == 1,
                )
            )
    return tmp_path / "data"


def rewrite(folder, part, change):
    """Replaces a part by a changed one and corrects its size and checksum."""
    path = folder / f"part-{part:05d}.parquet"
    pq.write_table(change(pq.read_table(path)), path)
    description = json.loads((folder / "dataset.json").read_text())
    description["parts"][part] |= {"bytes": path.stat().st_size, "sha256": checksum(path)}
    (folder / "dataset.json").write_text(json.dumps(description))


def with_value(column, row, value):
    def change(table):
        array = table.column(column).combine_chunks()
        if pa.types.is_fixed_size_list(array.type):
            numbers = array.flatten().to_numpy().copy()
            numbers[row * array.type.list_size] = value
            new = pa.FixedSizeListArray.from_arrays(pa.array(numbers), type=array.type)
        else:
            values = array.to_pylist()
            values[row] = value
            new = pa.array(values, array.type)
        return table.set_column(table.column_names.index(column), table.field(column), new)

    return change


def test_a_sound_data_set_has_no_fault(folder):
    assert list(validate(folder)) == []


@pytest.mark.parametrize(
    ("column", "row", "value", "message"),
    [
        ("rewards", 17, np.nan, "episode 7, step 7: rewards contains nan"),
        ("obs", 0, np.inf, "episode 6, step 0: obs contains inf"),
        (
            "actions",
            3,
            -7.0,
            "episode 6, step 3: action_0 in actions is -7, outside of -1.0 to 1.0",
        ),
        ("truncateds", 19, False, "episode 7, step 9: the episode is cut off"),
        ("terminateds", 4, True, "episode 6, step 4: the episode continues after its end"),
        ("t", 12, 5, "episode 7, step 5: t should be 2, so a step is missing or repeated"),
        ("new_obs", 2, 9.0, "episode 6, step 2: new_obs is not the obs of the next step"),
        ("new_obs", 29, np.nan, "episode 8, step 9: new_obs contains nan"),
        ("action_logp", 8, np.inf, "episode 6, step 8: action_logp contains inf"),
        ("source", 8, "cat", "episode 6, step 8: the source 'cat' is none of model, hold"),
    ],
)
def test_a_fault_in_the_third_of_seven_parts_is_named(folder, column, row, value, message):
    rewrite(folder, 2, with_value(column, row, value))
    problems = list(validate(folder))
    assert problems[0].startswith(f"part-00002.parquet (part 3 of 7), {message}")


@pytest.mark.parametrize("column", ["eps_id", "t", "rewards", "terminateds", "obs", "actions"])
def test_a_null_is_named(folder, column):
    def change(table):
        array = table.column(column).combine_chunks()
        values = [None if row in (17, 19) else value.as_py() for row, value in enumerate(array)]
        return table.set_column(
            table.column_names.index(column), column, pa.array(values, array.type)
        )

    rewrite(folder, 2, change)
    (problem,) = validate(folder)
    assert f"part-00002.parquet, row 17: the column '{column}' is null" in problem
    with pytest.raises(DatasetError, match=f"row 17: the column '{column}' is null"):
        list(Dataset.open(folder).episodes_iter())


def test_a_null_in_a_list_is_named(folder):
    def change(table):
        values = table.column("actions").to_pylist()
        values[17] = [0.5, None]
        column = pa.array(values, pa.list_(pa.float32(), 2))
        return table.set_column(table.column_names.index("actions"), "actions", column)

    rewrite(folder, 2, change)
    (problem,) = validate(folder)
    assert "part-00002.parquet, row 17: the column 'actions' contains null" in problem


def test_a_nan_is_named_by_the_reader_too(folder):
    rewrite(folder, 2, with_value("rewards", 17, np.nan))
    data = Dataset.open(folder)
    message = r"part-00002.parquet \(part 3 of 7\), episode 7, step 7: rewards contains nan"
    with pytest.raises(DatasetError, match=message):
        list(data.episodes_iter())


def test_a_repeated_episode_is_named(folder):
    first = pq.read_table(folder / "part-00000.parquet")
    numbers = first.column("eps_id").to_numpy() + 9
    repeated = first.set_column(0, first.field(0), pa.array(numbers))
    rewrite(folder, 3, lambda table: repeated)
    moments = json.loads((folder / "dataset.json").read_text())["parts"][0]["moments"]
    describe_otherwise(folder, lambda description: description["parts"][3].update(moments=moments))
    assert list(validate(folder)) == [
        f"part-00003.parquet (part 4 of 7), episode {number}: it repeats episode {number - 9}"
        for number in (9, 10, 11)
    ]


def test_an_unknown_column_is_named(folder):
    rewrite(folder, 1, lambda table: table.append_column("reward", table.column("rewards")))
    (problem,) = validate(folder)
    assert (
        "has a column 'reward', which the format does not have; did you mean 'rewards'?" in problem
    )
    with pytest.raises(DatasetError, match="has a column 'reward'"):
        list(Dataset.open(folder).episodes_iter())


def test_a_column_of_another_type_is_named(folder):
    def change(table):
        index = table.column_names.index("rewards")
        return table.set_column(index, "rewards", table.column("rewards").cast(pa.float64()))

    rewrite(folder, 1, change)
    (problem,) = validate(folder)
    assert "the column 'rewards' is double in place of float" in problem


def test_changed_bytes_and_missing_parts_are_named(folder):
    path = folder / "part-00000.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    (folder / "part-00005.parquet").unlink()
    problems = list(validate(folder))
    assert "its SHA-256 is not that of dataset.json" in problems[0]
    assert problems[-1].startswith("part-00005.parquet (part 6 of 7): ")
    assert "cannot be read (No such file or directory)" in problems[-1]


def test_a_file_that_is_not_listed_is_named(folder):
    (folder / "part-00099.parquet").write_bytes(b"")
    assert list(validate(folder)) == [
        "part-00099.parquet: dataset.json does not list it: delete it, or import it"
    ]


def test_parts_that_a_recording_adds_meanwhile_are_no_fault(tmp_path):
    random = np.random.default_rng(0)
    with DatasetWriter(tmp_path, describe(RACE, Spec(4, 2))) as writer:

        def add(_: int) -> None:
            for _ in range(2):
                writer.append(random_episode(random, Spec(4, 2)))
                writer.flush()

        add(0)
        assert list(validate(tmp_path, add)) == []


def test_the_largest_numbers_of_float32_are_recorded(tmp_path):
    episode = random_episode(np.random.default_rng(0), Spec(4, 2))
    episode.observation[:, 1] = 3e38 * np.sign(episode.reward[0])
    episode.observation[3] *= -1.0
    with DatasetWriter(tmp_path, describe(RACE, Spec(4, 2))) as writer:
        writer.append(episode)
    assert list(validate(tmp_path)) == []
    assert Dataset.open(tmp_path).moments.standard_deviation[1] > 1e38


def test_an_episode_with_an_unknown_probability_counts_as_unknown(tmp_path):
    random = np.random.default_rng(0)
    known = np.zeros(STEPS, np.float32)
    with DatasetWriter(tmp_path, describe(RACE, Spec(4, 2))) as writer:
        for _ in range(2):
            episode = random_episode(random, Spec(4, 2), STEPS)
            writer.append(episode._replace(action_logp=known))
    rewrite(tmp_path, 0, with_value("action_logp", STEPS + 5, None))
    data = Dataset.open(tmp_path)
    assert [one.action_logp is None for one in data.episodes_iter()] == [False, True]
    assert summarise(data)["known_probability_rate"] == 0.5


def test_a_description_of_another_version_is_refused(folder):
    text = (folder / "dataset.json").read_text()
    path = folder / "dataset.json"
    path.write_text(text.replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(DatasetError, match="format version 2; this rlcar reads 1"):
        Dataset.open(folder)


def test_a_wrong_entry_of_the_description_is_named(folder):
    text = (folder / "dataset.json").read_text()
    (folder / "dataset.json").write_text(text.replace('"is_discrete"', '"is_discreet"'))
    with pytest.raises(DatasetError, match=r"unknown setting 'is_discreet'; did you mean"):
        Dataset.open(folder)


def describe_otherwise(folder, change):
    description = json.loads((folder / "dataset.json").read_text())
    change(description)
    (folder / "dataset.json").write_text(json.dumps(description))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["parts"][2].update(episodes=0), "parts.2.episodes = 0: Input should be"),
        (lambda d: d["parts"][2].update(transitions=0), "parts.2.transitions = 0: Input should"),
        (lambda d: d["parts"][2].update(moments=None), "parts.2.moments must have a mean and"),
        (lambda d: d["parts"][2]["moments"]["mean"].pop(), "parts.2.moments must have a mean and"),
        (lambda d: d.update(observation=[]), "observations of 0 numbers .* at least one number"),
        (lambda d: d.update(action=[]), "0 numbers as an action: there must be at least one"),
        (
            lambda d: d.update(world={"race": RaceConfig().model_dump(mode="json")}),
            "lists observations of 4 numbers .* but its world, race, has observations of 6",
        ),
    ],
)
def test_a_description_that_contradicts_itself_is_refused(folder, change, message):
    describe_otherwise(folder, change)
    with pytest.raises(DatasetError, match=message):
        Dataset.open(folder)


def test_moments_of_other_observations_are_named(folder):
    def change(description):
        description["parts"][2]["moments"]["mean"][1] += 0.01

    describe_otherwise(folder, change)
    (problem,) = validate(folder)
    assert "part-00002.parquet (part 3 of 7): the count, mean or squares" in problem


def test_a_reader_refuses_a_part_whose_content_has_changed(folder):
    """Otherwise a policy would be published with the fingerprint of other data."""
    describe_otherwise(folder, lambda description: description["parts"][2].update(sha256="0" * 64))
    data = Dataset.open(folder)
    data.read_part(1)
    with pytest.raises(DatasetError, match=r"part-00002.parquet has changed: its SHA-256 is not"):
        data.read_part(2)


@pytest.mark.parametrize("value", [-1, 3])
def test_a_reader_refuses_a_discrete_action_that_does_not_exist(tmp_path, value):
    record(tmp_path / "data", world=RACE, spec=Spec(4, 3, is_discrete=True), part_transitions=50)
    rewrite(tmp_path / "data", 2, with_value("actions", 5, value))
    with pytest.raises(DatasetError, match=rf"the action {value} is not one of the 3 actions"):
        list(Dataset.open(tmp_path / "data").episodes_iter())


def test_a_reader_refuses_an_action_out_of_range(folder):
    rewrite(folder, 2, with_value("actions", 17, 3.0))
    message = "episode 7, step 7: actions contains 3, outside of -1 to 1"
    with pytest.raises(DatasetError, match=message):
        list(Dataset.open(folder).episodes_iter())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_value("rewards", 3, float("nan")), "part-00002.parquet has rewards that are not"),
        (lambda table: table.slice(0, 7), "part-00002.parquet has 7 rows in place of 30"),
        (lambda table: table.drop(["rewards"]), "part-00002.parquet has no column 'rewards'"),
    ],
)
def test_what_shows_the_sizes_refuses_a_damaged_part(rlcar, folder, change, message):
    rewrite(folder, 2, change)
    code, _, said = rlcar("data", "info", folder)
    assert (code, len(said.strip().splitlines())) == (2, 1)
    assert message in said


def test_what_shows_the_sizes_refuses_a_part_that_is_no_parquet_file(rlcar, folder):
    path = folder / "part-00002.parquet"
    path.write_bytes(b"x" * path.stat().st_size)
    code, _, said = rlcar("data", "info", folder)
    assert code == 2
    assert "part-00002.parquet cannot be read (Parquet magic bytes not found" in said
