"""What the SDK reports of the last actions arrives as it was given, in JSON and in frames."""

import json

import numpy as np
import pytest

from serve.api.frames import pack_request, unpack_request
from serve.api.schema import RACE_INTERFACE, ObservationBatch, check_request, decode_act
from serve.client.client import make_batch
from serve.client.outcome import make_outcome, outcome_fields, with_own
from serve.client.replies import Reply

SEEN = np.full((2, 6), 0.5, np.float32)
NAN = float("nan")


def _by_json(batch: ObservationBatch, outcome):
    body = {"observations": batch.observation.tolist()} | outcome_fields(outcome)
    return check_request(decode_act(json.dumps(body).encode()), RACE_INTERFACE).outcome


def _by_frame(batch: ObservationBatch, outcome):
    return unpack_request(pack_request(batch, 1, 0, outcome), RACE_INTERFACE, "a").outcome


@pytest.mark.parametrize("send", [_by_json, _by_frame])
@pytest.mark.parametrize(
    "options",
    [
        {"reward": [1.5, -2.0], "terminated": [True, False], "truncated": [False, True]},
        {"truncated": True},
        {"reward": 0.0, "executed": [[0.5, -0.5], [NAN, NAN]], "executed_by": "human"},
        {
            "reward": 1.0,
            "executed": [[0.5, -0.5], [0.1, 0.2]],
            "executed_by": "model",
            "executed_logp": [-0.5, NAN],
        },
    ],
)
def test_an_outcome_arrives_as_it_was_given(send, options):
    given = make_outcome(options, 2)
    arrived = send(make_batch(SEEN, False), given)
    for one, other in zip(given[:3], arrived[:3], strict=True):
        assert (one is None) == (other is None)
        assert one is None or one.tolist() == other.tolist()
    if given.executed is None:
        assert arrived.executed is None
        return
    for one, other in zip(given.executed, arrived.executed, strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_arguments_nothing_is_reported():
    assert make_outcome({}, 2) is None
    assert make_batch(SEEN, False).observation.shape == (2, 6)


def test_what_the_sdk_chose_itself_is_reported_unless_a_person_drove():
    outcome = make_outcome({"reward": 0.0, "executed": [[0.5, 0.5], [NAN, NAN]]}, 2)
    own = Reply(np.tile(np.float32([0.0, -1.0]), (2, 1)), "fallback", None, 0.0, 0.0, "no answer")
    executed = with_own(outcome, own).executed
    assert executed.driver.tolist() == [4, 3]  # human, fallback
    assert executed.action.tolist() == [[0.5, 0.5], [0.0, -1.0]]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"executed": [0.1, 0.2]}, r"executed has the shape \[1, 2\]: give the numbers"),
        ({"executed": SEEN[:, :2], "executed_by": "cat"}, "executed_by is 'cat'"),
        ({"rewards": 1.0}, "act has no argument 'rewards'"),
    ],
)
def test_arguments_of_wrong_shapes_are_refused(options, reason):
    with pytest.raises((ValueError, TypeError), match=reason):
        make_outcome(options, 2)
