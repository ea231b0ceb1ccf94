"""Slow viewers lose frames, but no messages."""

import asyncio
import json

from serve.live.viewers import Viewer, Viewers, make_message


def _taken(viewer):
    return asyncio.run(asyncio.wait_for(viewer.next_news(), 1.0))


def test_a_slow_viewer_gets_the_newest_frame_of_each_kind_and_every_sentence():
    viewers, viewer = Viewers(), Viewer()
    viewers.add(viewer)
    for number in range(3):
        viewers.send_frame(bytes([1, number]))
        viewers.send_frame(bytes([2, number]))
        viewers.send_message("lap", number=number)
    *sentences, tick, dream = _taken(viewer)
    assert [json.loads(one)["number"] for one in sentences] == [0, 1, 2]
    assert (tick, dream) == (bytes([1, 2]), bytes([2, 2]))


def test_a_newer_state_replaces_the_one_that_waits():
    """A viewer that takes and releases control all the time must not make others look slow."""
    viewers, viewer = Viewers(), Viewer()
    viewers.add(viewer)
    for number in range(1000):
        for kind in ("state", "stats", "track", "versions"):
            viewers.send_message(kind, number=number)
        if number == 500:
            viewers.send_message("lap", number=number)
    assert not viewer.is_gone
    assert [json.loads(one) for one in _taken(viewer)] == [
        {"type": "lap", "number": 500},
        *({"type": kind, "number": 999} for kind in ("state", "stats", "track", "versions")),
    ]


def test_who_leaves_hundreds_of_sentences_waiting_has_gone():
    viewer = Viewer()
    for _ in range(256):
        viewer.send_message("{}")
    assert not viewer.is_gone
    viewer.send_message("{}")
    assert viewer.is_gone


def test_a_viewer_is_found_by_its_secret_and_not_by_its_name():
    viewers, viewer = Viewers(), Viewer()
    viewers.add(viewer)
    assert viewers.find(viewer.key) is viewer
    assert viewers.find(viewer.id) is None
    viewers.remove(viewer)
    assert viewers.find(viewer.key) is None


def test_a_number_that_json_lacks_is_null():
    assert json.loads(make_message("stats", loss=float("nan"))) == {"type": "stats", "loss": None}
