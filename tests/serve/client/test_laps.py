"""Reports of more laps than a request holds."""

import asyncio

import pytest

from serve.client import AsyncDriveClient, DriveClient, Lap, LapReportError
from tests.serve.served import serving

SEEN = [0.5, 0.6, 0.9, 0.5, 0.4, 0.2]
# The second request has longer names of sessions, and is larger than this server accepts.
LAPS = [*[Lap(2.0)] * 256, *[Lap(2.0, session="x" * 64)] * 256]


def test_an_error_in_a_later_request_keeps_the_results_of_the_first(models):
    async def report(url):
        async with AsyncDriveClient(url, session="a", timeout_ms=30_000) as car:
            await car.act(SEEN, is_first=True)
            await car.report_laps(LAPS)

    with serving(models, act_body_bytes=12_000) as server:
        url = f"http://127.0.0.1:{server.port}"
        with DriveClient(url, session="b", timeout_ms=30_000) as car:
            car.act(SEEN, is_first=True)
            with pytest.raises(LapReportError) as one:
                car.report_laps(LAPS)
        with pytest.raises(LapReportError) as other:
            asyncio.run(report(url))
    for error in (one.value, other.value):
        assert "; the first 256 laps were reported before" in str(error)
        assert str(error).count("reported before") == 1
        # Without a rollout a lap counts for nothing, but its session is known.
        assert [result.status for result in error.results] == ["ignored"] * 256


def test_without_a_server_no_lap_has_a_result():
    with DriveClient("http://127.0.0.1:9") as car:
        with pytest.raises(LapReportError, match="cannot reach") as caught:
            car.report_laps(LAPS)
        assert caught.value.results == []
    with pytest.raises(LapReportError, match="this client is closed"):
        car.report_laps(LAPS)
