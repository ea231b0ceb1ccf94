"""What is new in recordings that servers go on writing."""

import numpy as np
import pytest

from cluster.pipeline.recordings import NothingLeftError, copy_new, find_new, with_earlier
from rlcar.datasets import Dataset, DatasetWriter, World
from rlcar.datasets.description import Source, describe
from rlcar.datasets.rotation import Rotation
from rlcar.errors import DatasetError
from rlcar.sim import SPEC
from tests.support.recordings import RACE, random_episode, record

LENGTH = 20


def add(folder, rewards, *, created="today", limit_bytes=1 << 20, world=RACE):
    """Adds one episode for each first reward, as a server does; each flush joins small parts."""
    rng = np.random.default_rng(0)
    source = Source(kind="server", about={"created": created})
    with DatasetWriter(
        folder,
        describe(world, SPEC),
        None if folder.exists() else source,
        resume=True,
        rotation=Rotation(limit_bytes),
    ) as writer:
        for reward in rewards:
            episode = random_episode(rng, length=LENGTH)
            episode.reward[0] = reward
            writer.append(episode)
            writer.flush()


def first_rewards(dataset):
    return sorted(float(episode.reward[0]) for episode in dataset.episodes_iter())


def test_each_episode_of_each_server_is_new_once(tmp_path):
    sessions = tmp_path / "sessions"
    add(sessions / "server-1", [1, 2, 3])
    add(sessions / "server-2", [11])
    first = find_new(sessions, {})
    assert (first.episodes, first.transitions) == (4, 4 * LENGTH)
    add(sessions / "server-1", [4])  # between the look and the copy: it belongs to the next run
    copied = copy_new(sessions, first.spans, tmp_path / "first")
    assert first_rewards(copied.dataset) == [1, 2, 3, 11]
    assert copied.faults == []
    assert copied.dataset.description.origins

    add(sessions / "server-2", [12])
    add(sessions / "server-3", [21])
    second = find_new(sessions, first.spans)
    assert (second.episodes, second.transitions) == (3, 3 * LENGTH)
    copied = copy_new(sessions, second.spans, tmp_path / "second")
    assert first_rewards(copied.dataset) == [4, 12, 21]
    assert find_new(sessions, second.spans).episodes == 0


def test_a_recording_that_was_begun_anew_is_new_as_a_whole(tmp_path):
    sessions = tmp_path / "sessions"
    add(sessions / "server-1", [1, 2, 3])
    used = find_new(sessions, {}).spans
    (sessions / "server-1").rename(tmp_path / "old")
    add(sessions / "server-1", [7, 8, 9, 10], created="tomorrow")
    assert find_new(sessions, used).episodes == 4


def test_episodes_that_the_server_has_deleted_are_gone_and_the_others_are_there(tmp_path):
    server = tmp_path / "sessions" / "server-1"
    add(server, range(4))
    used = find_new(server.parent, {}).spans
    add(server, range(4, 200), limit_bytes=60_000)
    assert Dataset.open(server).parts[0].first_episode > 4
    found = find_new(server.parent, used)
    rewards = first_rewards(copy_new(server.parent, found.spans, tmp_path / "new").dataset)
    assert len(rewards) == found.episodes < 196
    assert rewards[-1] == 199


def test_a_damaged_part_is_left_out_and_named(tmp_path):
    server = tmp_path / "sessions" / "server-1"
    data = record(server, episodes=30)
    path = server / data.parts[1].name
    path.write_bytes(path.read_bytes()[:-9])
    found = find_new(server.parent, {})
    copied = copy_new(server.parent, found.spans, tmp_path / "new")
    assert copied.dataset.episodes == 30 - data.parts[1].episodes
    (fault,) = copied.faults
    assert data.parts[1].name in fault
    for part in data.parts:
        (server / part.name).unlink()
    with pytest.raises(DatasetError, match="no new episode in .* can be read"):
        copy_new(server.parent, found.spans, tmp_path / "none")


def test_servers_of_different_worlds_and_a_missing_folder_are_one_sentence(tmp_path):
    with pytest.raises(DatasetError, match="record sessions into it with rlcar serve --record"):
        find_new(tmp_path / "sessions", {})
    add(tmp_path / "sessions" / "server-1", [1])
    add(tmp_path / "sessions" / "server-2", [1], world=World(name="elsewhere"))
    with pytest.raises(DatasetError, match="holds episodes of another world"):
        find_new(tmp_path / "sessions", {})


def test_earlier_episodes_are_learned_from_as_far_as_they_are_of_the_same_world(tmp_path):
    add(tmp_path / "one", [1, 2])
    add(tmp_path / "two", [3], world=World(name="elsewhere"))
    add(tmp_path / "new", [4])
    new = Dataset.open(tmp_path / "new")
    earlier = [tmp_path / "one", tmp_path / "two", tmp_path / "absent"]
    for _ in range(2):  # a repeated stage finds what it wrote
        merged = with_earlier(new, earlier, tmp_path / "learned")
        assert first_rewards(merged) == [1, 2, 4]
    assert with_earlier(new, earlier[1:], tmp_path / "other") is new


def test_what_is_not_there_any_more_is_left_out_and_named(tmp_path):
    sessions = tmp_path / "sessions"
    for name in ("stays", "anew", "gone"):
        add(sessions / name, [1, 2, 3])
    spans = find_new(sessions, {}).spans
    (sessions / "anew").rename(tmp_path / "old")
    add(sessions / "anew", [7, 8, 9, 10], created="tomorrow")
    (sessions / "gone").rename(tmp_path / "moved")
    copied = copy_new(sessions, spans, tmp_path / "first")
    assert first_rewards(copied.dataset) == [1, 2, 3]
    assert copied.faults == [
        f"{sessions / 'anew'} was begun anew meanwhile: the run's episodes in it are gone",
        f"the recording gone is not in {sessions} any more",
    ]
    assert [source.about["created"] for source in copied.dataset.description.sources[:-1]] == [
        "today"
    ]
    assert find_new(sessions, spans).episodes == 4  # those of the new recording


def test_episodes_that_were_deleted_before_the_copy_are_counted(tmp_path):
    server = tmp_path / "sessions" / "server-1"
    add(server, range(4))
    spans = find_new(server.parent, {}).spans
    add(server, range(4, 200), limit_bytes=60_000)
    later = find_new(server.parent, spans).spans
    first = Dataset.open(server).parts[0].first_episode
    copied = copy_new(server.parent, later, tmp_path / "new")
    gone = f"{first - 4:,} episodes of {server}, from number 4 on, were deleted before they were"
    assert copied.faults == [f"{gone} copied"]
    with pytest.raises(NothingLeftError, match="4 episodes of .*, from number 0 on, were deleted"):
        copy_new(server.parent, spans, tmp_path / "none")
