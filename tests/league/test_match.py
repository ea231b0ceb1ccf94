"""Races of two drivers: who wins, from which place, and what is counted."""

import numpy as np

from rlcar.config import make_config, make_race_config
from rlcar.evaluation.drivers import careful, full_throttle
from rlcar.league.entrants import Entrant
from rlcar.league.match import Finish, race_rules, rows_of_drivers, run_match


def _finish(finish_steps, driven):
    zero = np.zeros((len(driven), 2), np.int32)
    return Finish(np.array(finish_steps), np.array(driven, np.float32), zero > 0, zero, zero)


def test_the_first_to_finish_wins_and_else_the_one_that_got_farther():
    steps = [[200, 210], [210, 200], [0, 300], [300, 0], [250, 250], [0, 0], [0, 0], [0, 0]]
    driven = [[1, 1], [1, 1], [0.9, 1], [1, 0.9], [1, 1], [0.5, 0.4], [0.1, 0.4], [0.2, 0.2]]
    assert _finish(steps, driven).score.tolist() == [1, 0, 0, 1, 0.5, 1, 0, 0.5]


def test_each_driver_has_the_first_place_in_half_of_the_races():
    first, second = rows_of_drivers(3)
    assert first.tolist() == [0, 2, 4, 7, 9, 11]
    assert second.tolist() == [1, 3, 5, 6, 8, 10]


def test_a_race_does_not_depend_on_who_is_named_first():
    config = make_config()
    rules = race_rules(make_race_config("classic"), 1)
    drivers = [
        Entrant(name, name, config, policy, None)
        for name, policy in (("careful", careful), ("fast", full_throttle))
    ]
    finish = run_match(*drivers, rules, range(20_000, 20_006))
    swapped = run_match(*drivers[::-1], rules, range(20_000, 20_006))
    assert (finish.finish_steps[:, 1] > 0).sum() > 3
    assert finish.score.mean() < 0.5  # on classic, full throttle is faster
    for values, others in zip(finish, swapped, strict=True):
        # The halves of the races change places, and so do the columns.
        np.testing.assert_array_equal(values, np.roll(others[:, ::-1], 6, axis=0))
