"""The gate of simulation drives real versions over the same tracks."""

import json

import pytest

from rlcar.config import make_config, make_race_config
from rlcar.errors import ConfigError, UserError
from rlcar.evaluation.laps import drive
from rlcar.gates.settings import FIRST_TRACK_SEED, SimulationGate
from rlcar.gates.simulation import simulation_gate, worlds_of
from rlcar.registry import Registry
from rlcar.registry.jax_policy import jax_policy
from rlcar.track import TRACK_SETS
from tests.support.hand_made_versions import publish_constant, publish_follower


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """Version 1 is slow, 2 is quick, 3 is version 1 once more, and 4 drives straight on."""
    folder = tmp_path_factory.mktemp("gates") / "models"
    publish_follower(folder, 0.15, alias="champion")
    publish_follower(folder, 0.2)
    publish_follower(folder, 0.15)
    publish_follower(folder, 0.15, gain=0.0)
    return Registry(folder)


SHORT = SimulationGate(tracks=16, worlds=["classic"])


def test_a_quicker_version_passes_and_its_figures_are_those_of_its_laps(registry, tmp_path):
    slow, quick = registry.open(1), registry.open(2)
    said = []
    result = simulation_gate(quick, slow, SHORT, tmp_path / "out", say=said.append)
    assert result.passed, result.reason
    world = result.figures["worlds"]["classic"]
    seeds = tuple(range(FIRST_TRACK_SEED, FIRST_TRACK_SEED + 16))
    _, policy, params = jax_policy(quick)
    laps = drive(policy, params, make_race_config(), seeds)
    assert laps.lap_time_steps.all()
    assert world["candidate_cost"] == laps.lap_time_steps.mean()
    assert world["improvement"]["mean"] == world["stable_cost"] - world["candidate_cost"] > 50
    assert json.loads((tmp_path / "out" / "simulation-gate.json").read_text())["passed"] is True
    assert (tmp_path / "out" / "simulation-gate.png").read_bytes().startswith(b"\x89PNG")
    assert said[0] == "version 1 drives 16 laps in classic"


@pytest.mark.parametrize(("candidate", "stable"), [(1, 2), (4, 1)])
def test_a_slower_version_and_one_that_crashes_do_not_pass(registry, tmp_path, candidate, stable):
    result = simulation_gate(registry.open(candidate), registry.open(stable), SHORT, tmp_path)
    assert not result.passed
    assert "it is worse in a world: improvement -" in result.reason


def test_the_same_weights_drive_the_same_laps_whatever_the_noise_of_the_sensors(registry, tmp_path):
    """Both versions meet the same random numbers, so the paired differences are exactly 0."""
    settings = SimulationGate(tracks=8, seeds=2, worlds=["grand-prix-3"])
    result = simulation_gate(registry.open(3), registry.open(1), settings, tmp_path)
    assert result.figures["improvement"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert not result.passed
    world = result.figures["worlds"]["grand-prix-3"]
    assert (world["tracks"], world["seeds"]) == (8, 2)


def test_episodes_of_another_environment_are_paired_too(registry, tmp_path):
    """Standing still saves the punished effort, and both versions begin at the same places."""
    models = Registry(tmp_path / "models")
    for action in (0.0, 0.9, 0.0):
        publish_constant(tmp_path / "models", "MountainCarContinuous-v0", action)
    still, effort, again = (models.open(number) for number in (1, 2, 3))
    settings = SimulationGate(tracks=18)  # more than are driven side by side
    result = simulation_gate(still, effort, settings, tmp_path)
    assert result.passed
    assert result.figures["unit"] == "reward an episode"
    world = result.figures["worlds"]["MountainCarContinuous-v0"]
    assert (world["tracks"], world["stable_cost"]) == (
        18,
        pytest.approx(0.1 * 0.9**2 * 200, rel=1e-5),
    )
    equal = simulation_gate(still, again, settings, tmp_path)
    assert equal.figures["improvement"]["mean"] == 0.0
    with pytest.raises(
        UserError, match=r"trained in MountainCarContinuous-v0, and version 1 in th"
    ):
        simulation_gate(effort, registry.open(1), SHORT, tmp_path)


def test_a_version_is_not_compared_with_itself_nor_in_an_unknown_world(registry, tmp_path):
    one, two = registry.open(1), registry.open(2)
    with pytest.raises(UserError, match="version 1 cannot be compared with itself"):
        simulation_gate(one, one, SHORT, tmp_path)
    unknown = SimulationGate(worlds=["grandprix"])
    with pytest.raises(ConfigError, match=r"unknown world 'grandprix'; did you mean 'grand-prix'"):
        simulation_gate(two, one, unknown, tmp_path)


def test_by_default_both_worlds_are_driven_and_every_stage_of_the_grand_prix():
    classic, stage = make_config(), make_config(world="grand-prix-2")
    assert list(worlds_of(classic, classic, [])) == ["classic"]
    assert list(worlds_of(stage, classic, [])) == ["classic", "grand-prix-2"]
    narrow = make_config(overrides=["race.track.half_width_px=25"])
    races = worlds_of(narrow, classic, [])
    assert list(races) == ["classic", "classic of the candidate"]
    assert races["classic of the candidate"].track.half_width_px == 25.0
    last = make_config(world="grand-prix")
    stages = [f"grand-prix-{number}" for number in range(1, 5)]
    assert list(worlds_of(last, last, [])) == ["grand-prix", *stages]


def test_no_other_use_drives_the_tracks_of_the_gate():
    last = SimulationGate(tracks=4096, seed=200)
    end = FIRST_TRACK_SEED + (last.seed + 1) * last.tracks
    for name, seeds in TRACK_SETS.items():
        assert max(seeds) < FIRST_TRACK_SEED or min(seeds) >= end, name
