"""What a sweep may vary: kinds of ranges, their corners, the names of settings."""

import pydantic
import pytest

from cluster.sweeps.search_space import (
    MOST_CORNERS,
    Dimension,
    corners,
    dotted_names,
    nested,
    require_known,
)
from rlcar.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "exactly one of uniform, loguniform, integer and choice is needed, not none"),
        ({"uniform": [0.0, 1.0], "choice": [1]}, "not choice, uniform"),
        ({"uniform": [1.0, 1.0]}, "the first end must be the lower"),
        ({"integer": [9, 3]}, "the first end must be the lower"),
        ({"loguniform": [0.0, 1.0]}, "both ends must be above 0"),
        ({"uniform": [1.0]}, "at least 2 items"),
        ({"integer": [1.5, 3]}, "valid integer"),
        ({"uniform": [0.0, float("nan")]}, "finite number"),
        ({"choice": []}, "at least 1 item"),
        ({"choice": [2, 2]}, "names a value twice"),
    ],
)
def test_a_range_that_is_none_is_refused(given, message):
    with pytest.raises(pydantic.ValidationError, match=message):
        Dimension.model_validate(given)


def test_one_and_true_are_two_choices():
    assert Dimension.model_validate({"choice": [1, True]}).extremes() == [1, True]


def test_a_value_that_a_scheduler_moved_comes_back_into_its_range():
    learning_rate = Dimension(loguniform=[1e-4, 1e-2])
    assert learning_rate.legal(0.012) == 1e-2
    assert learning_rate.legal(8e-5) == 1e-4
    length = Dimension(integer=[5, 20])
    assert length.legal(24) == 20
    assert type(length.legal(7.0)) is int
    assert Dimension(choice=["a", None]).legal(None) is None


def test_corners_are_all_combinations_of_the_extremes():
    space = {"a": Dimension(uniform=[0.0, 1.0]), "b": Dimension(choice=[3, 5, 7])}
    found = [tuple(corner.values()) for corner in corners(space)]
    assert found == [(0.0, 3), (0.0, 5), (0.0, 7), (1.0, 3), (1.0, 5), (1.0, 7)]


def test_of_very_many_corners_each_extreme_comes_and_the_number_stays_bounded():
    space = {f"s{number}": Dimension(integer=[0, 9]) for number in range(16)}
    found = list(corners(space))
    assert len(found) == MOST_CORNERS + 32
    for name in space:
        assert {corner[name] for corner in found} == {0, 9}
    assert found == list(corners(space))


def test_nested_and_dotted_names_are_each_others_reverse():
    tree = nested({"a.b.c": 1, "a.d": 2, "e": 3})
    assert tree == {"a": {"b": {"c": 1}, "d": 2}, "e": 3}
    assert list(dotted_names(tree)) == ["a.b.c", "a.d", "e"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("dreamer.optimizer.learning_rat", "dreamer.optimizer.learning_rate"),
        ("dreamer.optimiser.learning_rate", "dreamer.optimizer.learning_rate"),
        ("learning_rate", "dreamer.optimizer.learning_rate"),
    ],
)
def test_an_unknown_setting_is_answered_with_the_nearest_of_the_algorithm(name, meant):
    known = ["td3.learning_rate", "dreamer.optimizer.learning_rate", "dreamer.optimizer.beta1"]
    with pytest.raises(ConfigError) as caught:
        require_known([name], known, "dreamer")
    assert str(caught.value) == f"space: unknown setting {name!r}; did you mean {meant!r}?"
    require_known(known, known, "dreamer")
