"""The data set of one server, on a full disk and beside other servers."""

from collections import Counter

import numpy as np

from rlcar.datasets import Dataset
from rlcar.datasets.validation import validate
from rlcar.sim import SPEC
from serve.recording.folder import NOT_WRITTEN, Options, RecordedFolder, claimed
from tests.support.recordings import RACE, random_episode
from tests.support.small_disk import mounted_disk


def _options(folder):
    return Options(str(folder), "here", "champion", 1.0, 10**9, 0.0, 120.0)


def test_a_full_disk_loses_episodes_until_there_is_room(tmp_path):
    with mounted_disk(tmp_path / "disk", size_kb=256) as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(200_000))
        lost = Counter()
        folder = RecordedFolder(disk / "here-1", _options(disk), lost)
        for seed, size in ((0, 3000), (1, 100)):
            folder.append(random_episode(np.random.default_rng(seed), SPEC, size), RACE, SPEC, 0.0)
            folder.flush_if_due(1.0)
            report = folder.report()
            if seed == 0:
                assert "No space left on device" in report.problem
                assert lost == {NOT_WRITTEN: 3000}
                ballast.unlink()
        assert report.problem is None
        folder.close()
        assert Dataset.open(disk / "here-1").transitions == 100
        assert list(validate(disk / "here-1")) == []


def test_each_server_has_a_folder_and_a_later_one_goes_on_with_it(tmp_path):
    with claimed(_options(tmp_path)) as first, claimed(_options(tmp_path)) as second:
        assert (first.name, second.name) == ("here-1", "here-2")
    with claimed(_options(tmp_path)) as again:
        assert again == first
