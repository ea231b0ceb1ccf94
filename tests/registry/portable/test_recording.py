"""What can be recorded of a policy in NumPy, and what is refused instead of recorded wrongly."""

import numpy as np
import pytest

from rlcar.agents.numpy_network import NumpyNetwork, without_memory
from rlcar.registry.portable.recording import CONSTANT, NotPortableError, record

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)


def _recorded(apply):
    return record(without_memory(apply), 2, {"weight": WEIGHT})


def test_a_graph_computes_what_the_policy_does():
    def apply(x):
        y = np.clip(x @ WEIGHT, -1.0, np.float32(2.0))
        y += 0.5
        y *= y
        parts = np.concatenate([y[:, 1:], x.reshape(-1, 2)], axis=1)
        return np.sqrt(np.abs(parts / 3.0 - np.maximum(parts, 0.1)))

    graph = _recorded(apply)
    x = np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32)
    action, state = graph.run(x, ())
    np.testing.assert_array_equal(action, apply(x))
    assert state == ()
    constants = [value for value in graph.values() if value.operation == CONSTANT]
    assert [value.name for value in constants if value.name] == ["weight"]
    assert {value.example.dtype for value in constants} == {np.dtype(np.float32)}


def test_memory_that_no_action_depends_on_is_left_out():
    def step(state, observation, is_first):
        total = state[0] + observation
        return np.tanh(total), (total, state[1] + total)

    network = NumpyNetwork((2, 2), step)
    graph = record(network, 2, {})
    assert [value.name for value in graph.state] == ["state_0"]
    action, (total,) = graph.run(np.ones((1, 2), np.float32), [np.ones((1, 2), np.float32)])
    np.testing.assert_array_equal(total, 2.0)
    np.testing.assert_allclose(action, np.tanh(2.0), rtol=1e-6)


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (lambda x: x.reshape(len(x), 2), "must not use the number of observations"),
        (lambda x: x.reshape(x.shape[0], 2), "must not use the number of observations"),
        (lambda x: x if x else x + 1.0, "must not branch on its inputs"),
        (lambda x: WEIGHT.take(x), "in a way that NumPy hides"),
        (np.exp, "np.exp cannot be recorded"),
        (np.sort, "np.sort cannot be recorded"),
        (lambda x: np.add(x, 1.0, out=x[:, :1]), "into a part of an array"),
        (lambda x: np.add(x, 1.0, out=np.zeros((1, 2), np.float32)), "into a part of an array"),
        (lambda x: WEIGHT, "depends on none of its inputs"),
    ],
)
def test_what_cannot_be_recorded_is_said(apply, message):
    with pytest.raises(NotPortableError, match=message):
        _recorded(apply)


def test_a_graph_that_differs_from_the_policy_is_noticed():
    def apply(x):
        y = x + 1.0
        part = y[:, :1]  # in NumPy a part of the same memory
        y += 1.0
        return np.concatenate([part, y], axis=1)

    with pytest.raises(NotPortableError, match="answer otherwise than the policy"):
        _recorded(apply)
