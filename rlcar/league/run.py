"""Runs a round-robin, keeps what is finished, and writes the table of the league."""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlcar.config.race import RaceConfig
from rlcar.evaluation.json_file import write_json
from rlcar.league.entrants import Entrant
from rlcar.league.match import Finish, race_rules, run_match
from rlcar.league.pictures import draw_league
from rlcar.league.ratings import rate
from rlcar.storage.checkpoint import provenance
from rlcar.system import durable

RESULT, PICTURE = "league.json", "league.png"
_FIELDS = tuple(Finish._fields)


class League(NamedTuple):
    """What a league drives."""

    entrants: Sequence[Entrant]
    race: RaceConfig
    track_set: str
    seeds: tuple[int, ...]
    laps: int
    seed: int

    @property
    def settings(self) -> dict[str, Any]:
        """What its results depend on: a league with equal settings continues an earlier one."""
        return {
            "drivers": {one.name: one.identity for one in self.entrants},
            "race": race_rules(self.race, self.laps).model_dump(mode="json"),
            "track_set": self.track_set,
            "tracks": len(self.seeds),
            "laps": self.laps,
            "seed": self.seed,
        }


def run_league(
    league: League,
    folder: Path,
    should_stop: Callable[[], bool] = lambda: False,
    on_match: Callable[[int, int, str], None] = lambda done, total, pair: None,
) -> dict[str, Any] | None:
    """Races every pair of drivers; returns the table, or None if it was asked to stop before.

    Each finished pair is written to `league.json` in the folder at once. A league of the same
    settings drives only the pairs that are missing there. `on_match` is called before each pair.
    """
    path, rules = folder / RESULT, race_rules(league.race, league.laps)
    results = _finished(path, league)
    pairs = list(itertools.combinations(league.entrants, 2))
    with durable.explaining_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for index, (first, second) in enumerate(pairs):
            if (first.name, second.name) in results:
                continue
            if should_stop():
                return None
            on_match(index, len(pairs), f"{first.name} against {second.name}")
            finish = run_match(first, second, rules, league.seeds, league.seed)
            results[first.name, second.name] = finish
            write_json(path, _tree(league, results, is_complete=False))
        tree = _tree(league, results, is_complete=True)
        names = [driver["name"] for driver in tree["drivers"]]
        draw_league(folder / PICTURE, tree["drivers"], _shares_won(names, results))
        write_json(path, tree)
    return tree


def _finished(path: Path, league: League) -> dict[tuple[str, str], Finish]:
    """Returns the results of an earlier league with the same settings, as far as it came."""
    try:
        tree = json.loads(path.read_text())
        if tree["settings"] != league.settings:
            return {}
        return {
            (match["first"], match["second"]): Finish(*(np.array(match[name]) for name in _FIELDS))
            for match in tree["matches"]
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _tree(
    league: League, results: Mapping[tuple[str, str], Finish], *, is_complete: bool
) -> dict[str, Any]:
    names = [one.name for one in league.entrants]
    scores = {pair: finish.score for pair, finish in results.items()}
    ratings = rate(names, scores, league.seed)
    drivers = [
        {"name": name, "rating": ratings[name].mean, "rating_interval": ratings[name].interval}
        | _totals(name, results)
        for name in sorted(names, key=lambda name: -ratings[name].mean)
    ]
    return {
        "settings": league.settings,
        "is_complete": is_complete,
        "drivers": drivers,
        "matches": [
            {
                "first": first,
                "second": second,
                "races": len(finish.score),
                "share_won_by_first": float(finish.score.mean()),
                "share_from_first_place": float(np.array_split(finish.score, 2)[0].mean()),
                "share_from_second_place": float(np.array_split(finish.score, 2)[1].mean()),
                **{name: np.asarray(getattr(finish, name)).tolist() for name in _FIELDS},
            }
            for (first, second), finish in results.items()
        ],
        "provenance": provenance(league.seed),
    }


def _totals(name: str, results: Mapping[tuple[str, str], Finish]) -> dict[str, Any]:
    """Sums up the races of one driver."""
    races, won, finished, crashed, contacts, overtakes = 0, 0.0, 0, 0, 0, 0
    for pair, finish in results.items():
        if name in pair:
            column = pair.index(name)
            score = finish.score if column == 0 else 1.0 - finish.score
            races, won = races + len(score), won + float(score.sum())
            finished += int((finish.finish_steps[:, column] > 0).sum())
            crashed += int(finish.is_crash[:, column].sum())
            contacts += int(finish.contacts[:, column].sum())
            overtakes += int(finish.overtakes[:, column].sum())
    return {
        "races": races,
        "share_won": won / races if races else None,
        "finish_rate": finished / races if races else None,
        "crashes": crashed,
        "contacts": contacts,
        "overtakes": overtakes,
    }


def _shares_won(names: Sequence[str], results: Mapping[tuple[str, str], Finish]) -> np.ndarray:
    shares = np.full((len(names), len(names)), np.nan)
    for (first, second), finish in results.items():
        one, other, share = names.index(first), names.index(second), finish.score.mean()
        shares[one, other], shares[other, one] = share, 1.0 - share
    return shares
