"""A league: its ratings and files, going on where it stopped, and mistakes of users."""

import json

import numpy as np
import pytest

from rlcar.config import make_config, make_race_config
from rlcar.errors import RegistryError, UserError
from rlcar.evaluation.drivers import DRIVERS
from rlcar.league.entrants import Entrant, open_entrants
from rlcar.league.ratings import rate
from rlcar.league.run import PICTURE, RESULT, League, run_league


def _league(names=tuple(DRIVERS)):
    config = make_config()
    entrants = [Entrant(name, f"rule {name}", config, DRIVERS[name], None) for name in names]
    race = make_race_config("classic", time_limit_steps=120)
    return League(entrants, race, "test", (20_000, 20_001), 1, 0)


def test_a_better_driver_has_a_higher_rating_and_more_races_make_it_surer():
    won = {("a", "b"): np.array([1.0] * 9 + [0.0]), ("b", "c"): np.array([1.0] * 9 + [0.5])}
    few = rate(["a", "b", "c"], won)
    assert few["a"].mean > few["b"].mean > few["c"].mean
    many = rate(["a", "b", "c"], {pair: np.tile(scores, 4) for pair, scores in won.items()})
    assert all(many[name].deviation < few[name].deviation for name in many)
    low, high = few["a"].interval
    assert high - low == pytest.approx(4 * few["a"].deviation)
    assert rate(["a", "b", "c"], won) == few


def test_a_league_races_every_pair_and_goes_on_where_it_stopped(tmp_path):
    raced = []
    stops = iter([False, True])
    result = run_league(
        _league(), tmp_path, lambda: next(stops), lambda done, total, pair: raced.append(pair)
    )
    assert result is None
    assert json.loads((tmp_path / RESULT).read_text())["is_complete"] is False
    table = run_league(_league(), tmp_path, on_match=lambda done, total, pair: raced.append(pair))
    assert len(raced) == len(set(raced)) == 3
    assert json.loads((tmp_path / RESULT).read_text()) == json.loads(json.dumps(table))
    assert (tmp_path / PICTURE).stat().st_size > 10_000
    assert sum(driver["share_won"] for driver in table["drivers"]) == pytest.approx(1.5)
    assert all(driver["races"] == 8 for driver in table["drivers"])
    ratings = [driver["rating"] for driver in table["drivers"]]
    assert ratings == sorted(ratings, reverse=True)
    # A league of other drivers begins anew.
    run_league(_league(tuple(DRIVERS)[:2]), tmp_path, on_match=lambda *pair: raced.append(pair))
    assert len(raced) == 4


def test_mistakes_are_one_clear_sentence(tmp_path, rlcar):
    models = str(tmp_path / "models")
    with pytest.raises(UserError, match="needs at least two drivers, and none is named"):
        open_entrants([], models)
    with pytest.raises(UserError, match="needs at least two drivers, and there is only 3"):
        open_entrants(["3"], models)
    with pytest.raises(UserError, match="3 is named twice"):
        open_entrants(["3", "4", "3"], models)
    with pytest.raises(RegistryError, match="there is no version 3"):
        open_entrants(["3", "4"], models)
    code, _, error = rlcar("league", "one")
    assert code == 2
    assert "needs at least two drivers" in error
    assert "Traceback" not in error
