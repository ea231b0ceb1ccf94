"""`WS /v1/drive` in binary and JSON, with valid and invalid frames."""

import json
import os
import socket
import struct
import time

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from serve.api.frames import REQUEST_HEAD, pack_request, unpack_answer
from serve.api.schema import RACE_INTERFACE, ObservationBatch, RequestError
from serve.guard.tokens import TokenStore
from tests.serve.served import serving
from tests.support.waiting import wait_until

SEEN = np.array([[0.5, 0.6, 0.9, 0.5, 0.4, 0.2]], np.float32)
FIRST = np.array([True])
TEXT = {"observation": SEEN[0].astype(float).tolist()}
PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def server(models):
    with serving(models, socket_idle_s=2.0, bad_frames=4) as server:
        yield server


def _connect(server, path="/v1/drive", **options):
    return connect(f"ws://127.0.0.1:{server.port}{path}", open_timeout=PATIENCE_S, **options)


def _frame(step=1, cars=1, flags=0, deadline_ms=0, body=None):
    body = SEEN.tobytes() * cars if body is None else body
    return struct.pack("<IHHB3x", step, deadline_ms, cars, flags) + body


def test_binary_and_json_frames_drive_the_same_car(server):
    with _connect(server) as line:
        line.send(pack_request(ObservationBatch(SEEN, FIRST), 1))
        step, binary = unpack_answer(line.recv(PATIENCE_S))
        line.send(json.dumps(TEXT | {"is_first": True, "step": 2}))
        text = json.loads(line.recv(PATIENCE_S))
    assert step == 1
    assert binary.source == text["source"] == "model"
    np.testing.assert_allclose(binary.actions[0], text["action"], atol=1e-6)
    assert binary.model_version == text["model_version"] == 1
    # The first frame of an episode resets the memory, but not the count of frames.
    assert [binary.session_steps, text["session_steps"]] == [1, 2]


def test_a_frame_is_what_the_documentation_says(server):
    with _connect(server) as line:
        line.send(_frame(step=77, flags=1))
        frame = line.recv(PATIENCE_S)
    assert len(frame) == 32
    step, version, age_ms, steps, cars, source = struct.unpack_from("<IIfIHB", frame)
    assert (step, version, steps, cars, source) == (77, 1, 1, 1, 0)
    assert 0.0 <= age_ms < 30_000.0  # as late as a busy machine may be
    assert np.abs(np.frombuffer(frame, "<f4", offset=24)).max() <= 1.0


def test_a_named_session_outlives_its_connection(server):
    with _connect(server, "/v1/drive?session=car-7") as line:
        line.send(_frame(step=1))
        line.recv(PATIENCE_S)
    with _connect(server, "/v1/drive?session=car-7") as line:
        line.send(_frame(step=2))
        assert unpack_answer(line.recv(PATIENCE_S))[1].session_steps == 2


def test_an_unnamed_session_does_not(server):
    before = len(server.config.app.app.action_service.sessions)
    with _connect(server) as line:
        line.send(_frame())
        line.recv(PATIENCE_S)
        assert len(server.config.app.app.action_service.sessions) == before + 1
    wait_until(lambda: len(server.config.app.app.action_service.sessions) == before)


def test_256_cars_drive_over_one_connection(server):
    with _connect(server) as line:
        line.send(_frame(cars=256, flags=1))
        _, answer = unpack_answer(line.recv(PATIENCE_S))
    assert len(answer.actions) == 256


ABUSE = {
    "an empty frame": b"",
    "a short head": b"\x01\x02\x03",
    "a head alone": _frame(body=b""),
    "no cars": _frame(cars=0, body=b""),
    "257 cars": _frame(cars=257, body=SEEN.tobytes() * 257),
    "65,535 cars and no data": _frame(cars=65_535, body=b""),
    "one byte too many": _frame() + b"x",
    "one byte too few": _frame()[:-1],
    "unknown flags": _frame(flags=0x80),
    "a silly deadline": _frame(deadline_ms=60_000),
    "NaN": _frame(body=np.full(6, np.nan, "<f4").tobytes()),
    "infinity": _frame(body=np.full(6, np.inf, "<f4").tobytes()),
    "out of range": _frame(body=np.full(6, 1.5, "<f4").tobytes()),
    "random bytes": os.urandom(500),
    "empty text": "",
    "text that is no JSON": "drive!",
    "a JSON list": "[]",
    "JSON with NaN": '{"observation": [NaN, 0, 0, 0, 0, 0]}',
    "JSON with a session": json.dumps(TEXT | {"session": "mine"}),
    "JSON with an unknown field": json.dumps(TEXT | {"x": 1}),
    "JSON of 50,000 brackets": "[" * 50_000,
    "JSON of the wrong size": '{"observation": [0.5]}',
}


def test_there_are_enough_abuses():
    assert len(ABUSE) >= 15


@pytest.mark.parametrize("name", ABUSE)
def test_a_bad_frame_gets_the_safe_action_and_the_line_drives_on(server, name):
    with _connect(server) as line:
        line.send(ABUSE[name])
        answer = json.loads(line.recv(PATIENCE_S))
        assert answer["action"] == [0.0, -1.0]
        assert answer["source"] == "fallback"
        assert answer["error"]
        line.send(_frame())
        assert unpack_answer(line.recv(PATIENCE_S))[1].source == "model"


def _closed(line):
    """Returns the close code of the connection, after reading the remaining messages."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        try:
            line.recv(PATIENCE_S)
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else None
    raise AssertionError("the connection is still open")


def test_too_many_bad_frames_end_the_connection(server):
    with _connect(server) as line:
        for _ in range(4):
            line.send(b"x")
        assert _closed(line) == 1008


def _head(opcode, length):
    """Of a masked frame that others follow; whose body stays unsent is hung up on without loss."""
    return bytes([opcode, 0xFF]) + struct.pack(">Q", length) + b"\0\0\0\0"


def test_a_frame_past_the_limit_ends_the_connection(server):
    with _connect(server) as line:
        line.socket.sendall(_head(0x82, 300_000))
        assert _closed(line) == 1009


def test_a_silent_connection_ends(server):
    with _connect(server) as line:
        assert _closed(line) == 1001


def test_fragments_past_the_limit_end_the_connection(server):
    with _connect(server) as line:
        for number in range(5):
            line.socket.sendall(_head(0x00 if number else 0x02, 50_000) + b"x" * 50_000)
        line.socket.sendall(_head(0x00, 50_000))
        assert _closed(line) == 1009


def test_invalid_utf8_ends_the_connection(server):
    with _connect(server) as line:
        line.socket.sendall(b"\x81\x82" + b"\0\0\0\0" + b"\xff\xfe")
        assert _closed(line) == 1007


def test_an_unmasked_frame_ends_the_connection(server):
    with _connect(server) as line:
        line.socket.sendall(b"\x82\x03abc")
        assert _closed(line) in (1002, None)


def test_a_reserved_opcode_ends_the_connection(server):
    with _connect(server) as line:
        line.socket.sendall(b"\x83\x80\0\0\0\0")
        assert _closed(line) in (1002, None)


def test_a_compressed_frame_that_nobody_agreed_on_ends_the_connection(server):
    with _connect(server) as line:
        assert "permessage-deflate" not in line.response.headers.get("Sec-WebSocket-Extensions", "")
        line.socket.sendall(b"\xc2\x80\0\0\0\0")
        assert _closed(line) in (1002, None)


def test_a_broken_line_in_the_middle_of_a_frame_harms_nobody(server):
    line = _connect(server)
    line.socket.sendall(b"\x82\xff" + struct.pack(">Q", 200_000) + b"\0\0\0\0" + b"x" * 100)
    line.socket.shutdown(socket.SHUT_RDWR)
    with _connect(server) as other:
        other.send(_frame())
        assert unpack_answer(other.recv(PATIENCE_S))[1].source == "model"


@pytest.mark.parametrize("name", ["", "a" * 65, "%00", "%C3%BC", "a%0Ab"])
def test_a_session_must_have_a_plain_name(server, name):
    with pytest.raises(InvalidStatus) as caught:
        _connect(server, f"/v1/drive?session={name}")
    assert caught.value.response.status_code == 403


def test_a_foreign_page_cannot_open_a_socket(server):
    with pytest.raises(InvalidStatus) as caught:
        _connect(server, origin="http://evil.example")
    assert caught.value.response.status_code == 403
    with _connect(server, origin=f"http://127.0.0.1:{server.port}") as line:
        line.send(_frame())
        assert unpack_answer(line.recv(PATIENCE_S))[1].source == "model"


def test_a_socket_needs_a_token_where_others_do(models, tmp_path):
    store = TokenStore(tmp_path / "tokens.json")
    secrets = {scope: store.create(scope, [scope]) for scope in ("act", "read")}
    with serving(models, auth=True, tokens=store.path) as server:
        for headers, status in (
            ({}, 401),
            ({"authorization": "Bearer x"}, 401),
            ({"authorization": f"Bearer {secrets['read']}"}, 403),
        ):
            with pytest.raises(InvalidStatus) as caught:
                _connect(server, additional_headers=headers)
            assert caught.value.response.status_code == status
        good = {"authorization": f"Bearer {secrets['act']}"}
        with _connect(server, additional_headers=good) as line:
            line.send(_frame())
            assert unpack_answer(line.recv(PATIENCE_S))[1].source == "model"


def test_one_cannot_take_over_anothers_session(models, tmp_path):
    store = TokenStore(tmp_path / "tokens.json")
    secrets = [store.create(name, ["act"]) for name in ("one", "two")]
    with serving(models, auth=True, tokens=store.path) as server:
        steps = []
        for secret in secrets:
            headers = {"authorization": f"Bearer {secret}"}
            path = "/v1/drive?session=car"
            with _connect(server, path, additional_headers=headers) as line:
                line.send(_frame(step=1))
                steps.append(unpack_answer(line.recv(PATIENCE_S))[1].session_steps)
    assert steps == [1, 1]


def test_nothing_is_left_in_flight(server):
    assert server.config.app.slots.taken == 0


def test_frames_round_trip():
    from serve.api.frames import unpack_request

    rng = np.random.default_rng(0)
    observed = ObservationBatch(rng.random((5, 6), np.float32), np.array([1, 0, 0, 1, 0], bool))
    asked = unpack_request(pack_request(observed, 9, 50), RACE_INTERFACE, "a")
    np.testing.assert_array_equal(asked.batch.observation, observed.observation)
    np.testing.assert_array_equal(asked.batch.is_first, observed.is_first)
    assert (asked.step, asked.deadline_ms, asked.session) == (9, 50.0, "a")
    assert REQUEST_HEAD.size == 12
    with pytest.raises(RequestError):
        unpack_request(b"", RACE_INTERFACE, "a")
