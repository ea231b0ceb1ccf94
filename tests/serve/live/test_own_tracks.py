"""A version that was trained on own tracks is served and shown on them, without their files."""

import json

import pytest

from rlcar.config.race import TrackConfig
from rlcar.errors import UserError
from rlcar.registry import Registry
from rlcar.track import set_seeds
from rlcar.track.own.fitting import Scale
from rlcar.track.own.reading import with_own_tracks
from serve.client.client import DriveClient
from serve.client.closed_loop import drive_served
from serve.live.track import report_track
from tests.serve.live.live_page import paged
from tests.serve.served import serving
from tests.support.hand_made_versions import publish_follower
from tests.support.waiting import wait_until
from tests.track.own.shapes import write


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    track = with_own_tracks(TrackConfig(), write(folder / "files"), Scale())
    publish_follower(folder / "models", 0.2, track=track, alias="champion")
    for file in (folder / "files").iterdir():
        file.unlink()
    return folder / "models"


@pytest.mark.long
def test_a_server_drives_the_tracks_of_its_version(models):
    with (
        serving(models) as server,
        DriveClient(f"http://127.0.0.1:{server.port}", timeout_ms=1000) as client,
    ):
        result = drive_served(client)
    assert (result["track_set"], result["tracks"], result["lap_rate"]) == ("own", 5, 1.0)


def test_the_page_shows_the_tracks_of_the_version_that_drives(models):
    own = Registry(models).version(1).metadata["config"]["race"]["track"]["own"]
    assert [track["name"] for track in own] == ["bean", "ell", "hairpins", "needle", "oval"]
    with paged(models) as page:
        wait_until(lambda: page.live.drive.policy is not None)
        course = page.live.drive.car.course
        seeds = set_seeds("validation", course.config.track)
        assert (course.seeds, len(seeds)) == (seeds, 5)
        track = report_track(page.live.drive.car, seeds)
        assert track["name"] == "bean"
        assert json.dumps(track)  # is sent to the page as JSON
        with pytest.raises(UserError, match=f"no track 7 here: choose {seeds[0]} to {seeds[-1]}"):
            page.live.go_to_track(7)
