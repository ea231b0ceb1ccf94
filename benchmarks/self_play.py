"""Does a policy that learned by self-play win two-car races against the single-car champion?

    python benchmarks/self_play.py FOLDER

For each of three seeds it trains PPO (preset `fused-ppo`, classic, 3 million env steps) twice:
alone on the track, and with two cars on each track in races over three laps, a quarter of which
against earlier versions. The best policies then race on the 64 test tracks over one lap, from both
places of the grid. FOLDER keeps the runs; runs that are there already are not trained again. It
takes about five minutes on two quiet cores.
"""

import sys
from pathlib import Path

from header import print_header

from rlcar.config import make_config
from rlcar.evaluation.laps import track_seeds
from rlcar.league.entrants import open_entrants
from rlcar.league.run import League, run_league
from rlcar.training.loop import train

SEEDS = (1, 2, 3)
TRAINING = ("training.env_steps=3000000", "training.evaluate_every_env_steps=100000")
SELF_PLAY = ("race.cars_per_track=2", "race.laps=3", "race.place_reward=10")


def main(folder: Path) -> None:
    print_header("jax", "openskill")
    shares = []
    for seed in SEEDS:
        for name, settings in ((f"self-play-{seed}", SELF_PLAY), (f"single-{seed}", ())):
            if not (folder / name / "config.json").exists():
                overrides = [*TRAINING, *settings, f"seed={seed}"]
                train(make_config("fused-ppo", overrides=overrides), folder / name)
        names = [str(folder / f"self-play-{seed}"), str(folder / f"single-{seed}")]
        entrants = open_entrants(names, "models")
        race = entrants[1].config.race
        league = League(entrants, race, "test", track_seeds("test", race.track), 1, seed)
        table = run_league(league, folder / f"league-{seed}")
        assert table is not None  # nothing stops it
        (match,) = table["matches"]
        races = 2 * len(league.seeds)  # both places of the grid
        by_name = {driver["name"].partition("-")[0]: driver for driver in table["drivers"]}
        for name, driver in by_name.items():
            print(
                f"seed {seed}, {name}: {driver['crashes']} crashes, {driver['contacts']} contacts "
                f"and {driver['overtakes']} overtakings in {races} races"
            )
        shares.append(match["share_won_by_first"])
        print(f"figure share_won_by_self_play_{seed}={shares[-1]:.4g}")
        print(f"figure from_the_first_place_{seed}={match['share_from_first_place']:.4g}")
        print(f"figure from_the_second_place_{seed}={match['share_from_second_place']:.4g}")
    print(f"figure share_won_by_self_play={sum(shares) / len(shares):.4g}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
