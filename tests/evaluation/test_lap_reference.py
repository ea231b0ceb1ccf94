"""The reference of a version: what it holds of each lap, and which ones are refused."""

import json

import numpy as np
import pytest

from rlcar.errors import ConfigError
from rlcar.evaluation.lap_reference import (
    BINS,
    FEWEST_LAPS,
    SETTLING_STEPS,
    lap_statistics,
    make_lap_reference,
    parse_reference,
    reference_tree,
)

LAPS, STEPS = 30, 100


def make_steps(laps: int = LAPS) -> dict[str, np.ndarray]:
    """Returns laps of 100 steps and one observed number, which rises from 0 to 1 after the start.

    The action is always 1.
    """
    rising = np.linspace(0.0, 1.0, STEPS - SETTLING_STEPS)
    lap = np.concatenate([np.full(SETTLING_STEPS, 9.0), rising])
    return {
        "observation": np.tile(lap[:, None, None], (1, laps, 1)),
        "action": np.ones((STEPS, laps, 1)),
        "reward": np.full((STEPS, laps), 0.5),
        "steps": np.full(laps, STEPS),
        "is_lap": np.ones(laps, bool),
    }


def test_a_lap_is_described_without_its_start():
    reference = make_lap_reference(**make_steps())
    np.testing.assert_allclose(reference.laps.mean, np.tile([0.5, 1.0], (LAPS, 1)), atol=1e-6)
    assert reference.laps.deviation[0, 0] == pytest.approx(1 / 12**0.5, rel=0.03)
    # 68 steps in ten bins: no bin is off by a whole step, which is 1 / 68.
    np.testing.assert_allclose(reference.laps.share[0, 0], 1 / BINS, atol=0.013)
    np.testing.assert_array_equal(reference.reward, 50.0)
    assert reference.longest_steps == STEPS


def test_a_lap_that_ends_before_it_has_settled_counts_as_a_whole():
    steps = make_steps()
    steps["steps"][0] = 20  # a crash
    steps["is_lap"][0] = False
    reference = make_lap_reference(**steps)
    assert reference.laps.mean[0, 0] == 9.0
    assert (reference.reward[0], reference.is_lap.sum()) == (10.0, LAPS - 1)


def test_rounding_moves_no_value_at_a_limit_into_another_bin():
    reference = make_lap_reference(**make_steps())
    exact, rounded = (
        lap_statistics([np.full((50, 2), value)], reference.edges) for value in (1.0, 0.9999)
    )
    np.testing.assert_array_equal(exact.share, rounded.share)


def test_a_reference_survives_json():
    reference = make_lap_reference(**make_steps())
    read = parse_reference(json.loads(json.dumps(reference_tree(reference))), 1, 1)
    for before, after in zip(reference.laps, read.laps, strict=True):
        np.testing.assert_allclose(before, after, rtol=1e-4)  # it holds five digits
    for before, after in zip(reference.edges, read.edges, strict=True):
        np.testing.assert_array_equal(before, after)


def test_laps_of_a_few_steps_are_no_reference():
    with pytest.raises(ConfigError, match="no lap has 8 steps"):
        make_lap_reference(**make_steps() | {"steps": np.full(LAPS, 3)})


def changed(name: str, value: object) -> dict[str, object]:
    return reference_tree(make_lap_reference(**make_steps())) | {name: value}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ([], "is no JSON object"),
        ({}, "has the format 'None'"),
        ({"format": 1}, "about observations of None numbers, and the policy takes 1"),
        (changed("observation_size", 7), "about observations of '?7'? numbers"),
        ({"format": 1, "observation_size": 1}, "damaged .a part is missing"),
        (changed("mean", [[float("nan"), 0.0]] * LAPS), "mean holds a number that is not finite"),
        (changed("mean", [[None, 0.0]] * LAPS), "mean holds a number that is not finite"),
        (changed("mean", [[1.0]] * LAPS), r"mean has the shape \[30, 1\]"),
        (changed("mean", [[1.0, 1.0], [1.0]]), "damaged"),
        (changed("share", "x"), "damaged"),
        (changed("share", [[[-0.1] * BINS] * 2] * LAPS), "a share or a deviation is negative"),
        (changed("edges", [[0.5, 0.4], [0.5]]), "edges of a histogram do not rise"),
        (changed("edges", [[0.5]]), "edges of 1 channels, not of 2"),
        (changed("longest_steps", 1e300), "its longest lap has 1e.300 steps"),
        (reference_tree(make_lap_reference(**make_steps(5))), f"5 laps, and {FEWEST_LAPS} are"),
    ],
)
def test_an_unusable_reference_is_refused_in_one_sentence(tree, message):
    with pytest.raises(ConfigError, match=message) as raised:
        parse_reference(tree, 1, 1)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300
