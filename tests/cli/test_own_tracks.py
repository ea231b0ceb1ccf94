"""Own tracks through the commands: checked, exported, trained on, and kept with the run."""

import json
import re
import shutil

import numpy as np
import pytest

from rlcar.cli.train_plan import Choice, make_plan
from rlcar.config import make_config
from rlcar.errors import UserError
from rlcar.evaluation.chosen_tracks import ChosenTracks
from rlcar.registry import Registry
from rlcar.track.own.fitting import Scale
from tests.track.own.shapes import write

_AS_IN_FILES = Scale()
NAMES = ["bean", "ell", "hairpins", "needle", "oval"]


def _choice(tracks, scale=_AS_IN_FILES, **changes):
    nothing = dict.fromkeys(Choice._fields)
    chosen = {"mode": "standard", "overrides": [], "registry": "models"}
    choice = {**nothing, **chosen, "preset": "ppo", "tracks": ChosenTracks(tracks, scale)}
    return Choice(**{**choice, **changes})


def _plan(tmp_path, *arguments, **changes):
    return make_plan(_choice(*arguments, **changes), tmp_path / "runs", "mine", None)


def test_a_training_takes_its_tracks_from_a_folder_or_a_file(tmp_path):
    files = write(tmp_path / "files")
    plan = _plan(tmp_path, str(files))
    assert [track.name for track in plan.config.race.track.own] == NAMES
    plan = _plan(tmp_path, str(files / "oval.csv"), overrides=["race.track.points=150"])
    assert [track.points for track in plan.config.race.track.own] == [150]
    grand_prix = _plan(tmp_path, str(files), world="grand-prix").config.race
    assert grand_prix.track.obstacle_placement == "road"
    assert len(grand_prix.track.own) == 5


@pytest.mark.parametrize(
    ("arguments", "changes", "message"),
    [
        (("nowhere",), {}, "--tracks nowhere: there is no such file or folder"),
        (("files",), {"env": "rlcar/Catch-v0", "preset": None}, "rlcar/Catch-v0 gives the env"),
        ((None, Scale(2.0)), {}, "--track-scale 2 says how to read tracks"),
        ((None, Scale(None, 30.0)), {}, "--road-width 30 says how to read tracks"),
        (("files", Scale(0.001)), {}, "too narrow for the car: a road is 20 to 120 px wide"),
    ],
)
def test_options_that_do_not_fit_are_one_sentence(
    tmp_path, monkeypatch, arguments, changes, message
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "files", ["oval"])
    with pytest.raises(UserError, match=re.escape(message)):
        _plan(tmp_path, *arguments, **changes)
    assert not (tmp_path / "runs").exists()


def test_a_set_means_drawn_tracks_and_nothing_means_those_of_the_run(tmp_path):
    race = _plan(tmp_path, str(write(tmp_path / "files"))).config.race
    assert ChosenTracks().apply(race, "test") == (race, "test")
    drawn, track_set = ChosenTracks("circuits").apply(race, "test")
    assert (drawn.track.own, track_set) == ((), "circuits")
    with pytest.raises(UserError, match="unknown track set 'tset'; did you mean 'test'"):
        ChosenTracks("tset").apply(race, "test")


def test_tracks_become_settings_for_other_commands(rlcar, tmp_path):
    write(tmp_path / "files", ["oval", "ell"])
    options = ("--world", "grand-prix-1", "--settings", "own.yaml")
    assert rlcar("tracks", "check", "files", *options)[0] == 0
    config = make_config(file=tmp_path / "own.yaml", world="grand-prix-1")
    assert config.race == _plan(tmp_path, "files", world="grand-prix-1").config.race
    assert [track.name for track in config.race.track.own] == ["ell", "oval"]


def test_files_are_checked_and_exported(rlcar, tmp_path):
    write(tmp_path / "files")
    code, shown, _ = rlcar("tracks", "check", "files", "--out", "tracks.png")
    assert code == 0
    assert all(name in shown for name in NAMES)
    assert shown.count("counter-clockwise") == 3
    assert (tmp_path / "tracks.png").read_bytes()[:4] == b"\x89PNG"
    code, shown, said = rlcar("tracks", "export", "out", "--tracks", "files")
    assert (code, "5 tracks in out" in said) == (0, True)
    code, again, _ = rlcar("tracks", "check", "out")
    assert [line for line in again.splitlines() if "oval" in line] == [
        line for line in rlcar("tracks", "check", "files")[1].splitlines() if "oval" in line
    ]
    code, _, said = rlcar("tracks", "export", "out", "--tracks", "files")
    assert (code, "bean.csv exists already" in said) == (2, True)
    code, _, said = rlcar("tracks", "export", "drawn", "--count", "3")
    assert len(list((tmp_path / "drawn").iterdir())) == 3


@pytest.mark.long
@pytest.mark.slow
def test_five_shapes_are_trained_on_and_lapped_without_their_files(rlcar, tmp_path):
    """The whole life of a run: its files disappear after the first half of the training."""
    write(tmp_path / "files")
    half = ("--set", "training.env_steps=500000")
    code, _, said = rlcar(
        *("train", "--local", "--preset", "fused-ppo", "--tracks", "files", "--name", "five"),
        *("--seed", "1", *half),
    )
    assert code == 0, said
    shutil.rmtree(tmp_path / "files")
    code, _, said = rlcar(
        *("train", "--local", "--resume", "runs/five", "--publish"),
        *("--set", "training.env_steps=1000000"),
    )
    assert code == 0, said
    report = json.loads((tmp_path / "runs/five/report.json").read_text())
    assert (report["track_set"], report["track_names"]) == ("own", NAMES)
    assert report["lap_rate"] == 1.0
    assert 0 < report["over_bound_pct"] < 15
    code, shown, said = rlcar("models", "show", "1")
    assert (code, json.loads(shown)["metadata"]["config"]["own_tracks"]) == (0, NAMES)
    assert Registry("models").version(1).metadata["laps"]["track_set"] == "own"
    code, _, said = rlcar("render", "runs/five", "--track", "3", "--out", "lap.png")
    assert (code, "five: a lap in" in said) == (0, True), said
    code, shown, said = rlcar("evaluate", "runs/five", "--tracks", "circuits")
    assert (code, "10 circuits tracks" in shown) == (0, True), said
    assert np.isfinite(json.loads((tmp_path / "runs/five/report.json").read_text())["bound_steps"])
