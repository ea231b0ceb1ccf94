"""A misspelt field or word of a request is refused with the name that was probably meant."""

import json

import pytest

from serve.api.laps import decode_laps
from serve.api.schema import RequestError, decode_act

GOOD = [0.5] * 6
DONE = {"action": [0.0, 0.5], "source": "human"}


def executed(*changes):
    return {"observations": [GOOD] * 2, "executed": [None, *changes]}


@pytest.mark.parametrize(
    ("decode", "body", "said"),
    [
        (decode_act, {"observation": GOOD, "sesion": "a"}, "`sesion`; did you mean 'session'?"),
        (decode_act, executed(DONE | {"lopg": 0.1}), "executed[1]`; did you mean 'logp'?"),
        (decode_act, executed(DONE | {"source": "humna"}), "source`; did you mean 'human'?"),
        (decode_act, {"zzz": 1}, "`zzz`; there are: deadline_ms, executed, is_first"),
        (decode_laps, {"sesion": "a", "reward": 1.0}, "`sesion`; did you mean 'session'?"),
        (decode_laps, {"laps": [{"rewrad": 1.0}]}, "laps[0]`; did you mean 'reward'?"),
    ],
)
def test_the_nearest_name_is_given(decode, body, said):
    with pytest.raises(RequestError) as caught:
        decode(json.dumps(body).encode())
    assert caught.value.status == 422
    assert said in str(caught.value)


def test_other_errors_and_very_long_names_are_told_as_they_are():
    for body in ({"observation": "a"}, {"observation": GOOD, "session" * 1000: 1}):
        with pytest.raises(RequestError) as caught:
            decode_act(json.dumps(body).encode())
        assert "did you mean" not in str(caught.value)
        assert "there are" not in str(caught.value)
