import json
import re

import numpy as np
import pytest

from serve.api.schema import (
    RACE_INTERFACE,
    RequestError,
    check_range,
    check_request,
    decode_act,
    encode,
)

GOOD = [0.1, 0.2, 0.3, 0.4, 0.5, 1.0]


def _ask(**fields):
    return check_request(decode_act(json.dumps(fields).encode()), RACE_INTERFACE)


def test_one_observation_becomes_one_row():
    asked = _ask(observation=GOOD, is_first=True, step=3)
    np.testing.assert_array_equal(asked.batch.observation, np.array([GOOD], np.float32))
    assert asked.batch.is_first.tolist() == [True]
    assert asked.is_single
    assert asked.step == 3


def test_256_observations_are_256_rows_and_257_too_many():
    assert _ask(observations=[GOOD] * 256).batch.observation.shape == (256, 6)
    with pytest.raises(RequestError, match="length <= 256"):
        _ask(observations=[GOOD] * 257)


@pytest.mark.parametrize(
    "value", [True, "0.5", None, [0.5], {}, -0.001, 1.0000000000000002, 1e300, 10**400]
)
def test_what_is_no_number_in_range_is_refused(value):
    with pytest.raises(RequestError) as caught:
        _ask(observation=[value, *GOOD[1:]])
    assert caught.value.status in (400, 422)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1.0000001, "1.0000001"),
        (-1e-9, "-1e-09"),
        (2, "2"),
        (1.0000000000000002, "1.0000000000000002"),
    ],
)
def test_a_refused_number_is_shown_with_the_digits_that_matter(value, shown):
    with pytest.raises(RequestError, match=rf"number 0 is {re.escape(shown)}: outside 0 to 1$"):
        _ask(observation=[value, *GOOD[1:]])


def test_a_refused_number_of_a_frame_is_shown_as_float32():
    seen = np.array([[np.nextafter(np.float32(1), np.float32(2)), *GOOD[1:]]], np.float32)
    with pytest.raises(RequestError, match=r"number 0 is 1\.0000001: outside 0 to 1$"):
        check_range(seen, RACE_INTERFACE)


@pytest.mark.parametrize("word", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"nan"])
def test_what_json_cannot_say_is_refused(word):
    body = b'{"observation": [' + word + b", 0.2, 0.3, 0.4, 0.5, 1.0]}"
    with pytest.raises(RequestError):
        check_request(decode_act(body), RACE_INTERFACE)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"observation": GOOD, "observations": [GOOD]},
        {"observation": GOOD[:5]},
        {"observation": [*GOOD, 0.5]},
        {"observation": []},
        {"observations": []},
        {"observations": [GOOD, GOOD[:5]]},
        {"observation": GOOD, "sesion": "a"},
        {"observation": GOOD, "session": ""},
        {"observation": GOOD, "session": "a\n"},
        {"observation": GOOD, "session": "../../x y"},
        {"observation": GOOD, "session": "a" * 65},
        {"observation": GOOD, "session": 7},
        {"observation": GOOD, "is_first": 1},
        {"observation": GOOD, "is_first": [True, False]},
        {"observation": GOOD, "step": -1},
        {"observation": GOOD, "step": 2**32},
        {"observation": GOOD, "step": 1.5},
        {"observation": GOOD, "deadline_ms": 0},
        {"observation": GOOD, "deadline_ms": 1e9},
        {"observation": GOOD, "deadline_ms": "50"},
        {"observation": GOOD, "model_version": -3},
    ],
)
def test_every_wrong_field_is_refused_in_a_sentence(fields):
    with pytest.raises(RequestError) as caught:
        _ask(**fields)
    assert caught.value.status == 422
    assert str(caught.value)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b"[]" * 3, b"[" * 100_000, b'{"observation": "\xff"}']
)
def test_what_is_no_json_is_refused(body):
    with pytest.raises(RequestError) as caught:
        decode_act(body)
    assert caught.value.status in (400, 422)


def test_an_answer_leaves_out_what_it_has_not():
    from serve.api.schema import ActAnswer

    answer = ActAnswer("model", 3, 0.5, action=[0.0, 1.0])
    assert json.loads(encode(answer)) == {
        "source": "model",
        "model_version": 3,
        "age_ms": 0.5,
        "action": [0.0, 1.0],
    }
