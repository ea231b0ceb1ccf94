"""Settings: what is refused and how, presets, files and overrides."""

import pytest

from rlcar.agents import ALGORITHMS
from rlcar.config import dump_config, load_config, make_config, make_race_config
from rlcar.config.presets import MODES, PRESETS, WORLDS
from rlcar.errors import ConfigError


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainin.cars=4", "unknown setting 'trainin'; did you mean 'training'?"),
        ("training.car=4", "unknown setting 'training.car'; did you mean 'cars'?"),
        (
            "dreamer.world_model.latent_clases=4",
            "unknown setting 'dreamer.world_model.latent_clases'; did you mean 'latent_classes'?",
        ),
        ("dreamer.optimizer.learning_rate=.nan", "dreamer.optimizer.learning_rate = nan: "),
        ("dreamer.optimizer.learning_rate=.inf", "dreamer.optimizer.learning_rate = inf: "),
        ("dreamer.optimizer.learning_rate=1e999", "dreamer.optimizer.learning_rate = inf: "),
        ("training.cars=-1", "training.cars = -1: "),
        ("training.cars=0", "training.cars = 0: "),
        ("training.cars=many", "training.cars = 'many': "),
        ("training.cars=2.5", "training.cars = 2.5: "),
        ("training.cars=true", "training.cars = True: "),
        ("algorithm=dreemer", "unknown algorithm 'dreemer'; did you mean 'dreamer'"),
        ("race=5", "race = 5: "),
        ("training.cars", "'training.cars' is not of the form section.name=value"),
        ("training..cars=2", "is not of the form section.name=value"),
        ("training.cars=[", "the value is not YAML"),
        ("race.vehicle.top_speed_px_per_step=7", "the classic car's top speed is 5 px/step"),
        ("race.vehicle.delay_steps={low: 0, high: 4}", "delay_steps are whole numbers in 0..3"),
        ("race.vehicle.delay_steps={low: 0.5, high: 2}", "delay_steps are whole numbers in 0..3"),
        ("race.vehicle.grip_px_per_step2={low: 0.3, high: 0.2}", "low 0.3 is above high 0.2"),
        ("race.vehicle.grip_px_per_step2={low: 0.0, high: 0.2}", "grip_px_per_step2 lies in"),
        ("race.sensors.noise_px={low: 0, high: .nan}", "race.sensors.noise_px.high = nan"),
        ("race.sensors.dropout={low: 0, high: 1}", "dropout in 0..0.9"),
        (
            "race.rival={head_start_laps: {low: 0, high: 0.5}}",
            "the rival must not start on top of the car",
        ),
        ("race.track.half_width_px=4", "race.track.half_width_px = 4"),
        ("race.track.half_width_low_px=50", "half_width_low_px 50.0 is above half_width_px 40.0"),
        (
            "race.track={half_width_px: 15.0, obstacle_placement: road}",
            "an obstacle of radius 10.0 px leaves no gap of 30.0 px on a road of half-width 15.0",
        ),
        ("replay.batch_length=100", "replay.batch_length 100 is longer than"),
        ("dreamer.world_model.recurrent_units=250", "recurrent_units 250 is not a multiple"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_name_its_value_and_a_hint(override, message):
    with pytest.raises(ConfigError) as refusal:
        make_config(overrides=[override])
    assert message in str(refusal.value)


@pytest.mark.parametrize("world", WORLDS)
def test_every_world_is_a_setting_that_later_sources_may_change(world, tmp_path):
    config = make_config(world=world, overrides=["race.track.half_width_px=44"])
    assert config.world == world
    assert config.race == make_race_config(world, track={"half_width_px": 44.0})
    file = tmp_path / "config.json"
    file.write_text(dump_config(config))
    assert load_config(file) == config
    named = tmp_path / "run.yaml"
    named.write_text(f"world: {world}\n")
    assert make_config(file=named).race == make_race_config(world)


def test_the_stages_of_the_grand_prix_are_all_different_and_the_last_is_the_whole():
    stages = [make_race_config(f"grand-prix-{stage}") for stage in range(1, 6)]
    assert len({stage.model_dump_json() for stage in stages}) == 5
    assert stages[-1] == make_race_config("grand-prix")


def test_an_unknown_world_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="unknown world 'grandprix'; did you mean 'grand-prix'"):
        make_config(world="grandprix")
    with pytest.raises(ConfigError, match="unknown world 'clasic'; did you mean 'classic'"):
        make_race_config("clasic")


def test_a_setting_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        make_config().seed = 3


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.e-3", "+1.0e-3", "0.001", ".1e-2"])
def test_an_override_reads_a_number_however_it_is_written(text):
    config = make_config(overrides=[f"dreamer.optimizer.learning_rate={text}"])
    assert config.dreamer.optimizer.learning_rate == 0.001


def test_a_yaml_file_reads_a_number_with_an_exponent(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("dreamer:\n  optimizer: {learning_rate: 3e-4, epsilon: 1e-8}\n")
    optimizer = make_config(file=file).dreamer.optimizer
    assert (optimizer.learning_rate, optimizer.epsilon) == (3e-4, 1e-8)


def test_later_sources_win_preset_then_mode_then_file_then_overrides_then_keywords(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("seed: 1\ntraining: {cars: 3, block_length: 20}\n")
    overrides = ["training.cars=5", "seed=2"]
    config = make_config("small", "test", file, overrides, seed=4)
    assert config.preset == "small"
    assert config.dreamer.optimizer.learning_rate == 1e-4  # from the preset
    assert config.dreamer.world_model.recurrent_units == 64  # from the mode
    assert config.training.block_length == 20  # from the file
    assert config.training.cars == 5  # from the overrides
    assert config.seed == 4  # from the keyword


def test_a_file_may_name_its_preset(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("preset: medium\n")
    assert make_config(file=file) == make_config("medium")


def test_an_empty_file_changes_nothing(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("# nothing yet\n")
    assert make_config(file=file) == make_config()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- seed\n", "holds a list, not settings"),
        ("seed: [1\n", "cannot read the config file"),
        ("seed: 2024-13-45\n", "month must be in 1..12"),
        ("seed: !!bool x\n", "cannot read the config file"),
        ("seed: " + 3000 * "[" + "\n", "cannot read the config file"),
        ("algorithm: 5\n", "unknown algorithm 5; there are: "),
        ("sed: 1\n", "unknown setting 'sed'; did you mean 'seed'?"),
        ("preset: mediun\n", "unknown preset 'mediun'; did you mean 'medium'?"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, text, message):
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as refusal:
        make_config(file=file)
    assert message in str(refusal.value)


def test_an_absent_file_is_refused_with_its_name(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read the config file .*absent\.yaml"):
        make_config(file=tmp_path / "absent.yaml")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_algorithm_alone_brings_its_own_preset(algorithm, tmp_path):
    config = make_config(algorithm=algorithm)
    assert (config.algorithm, config.preset) == (
        algorithm,
        ALGORITHMS[algorithm].default_preset,
    )
    (tmp_path / "c.yaml").write_text(f"algorithm: {algorithm}\n")
    assert make_config(file=tmp_path / "c.yaml") == config


def test_an_algorithm_that_is_unknown_or_not_the_presets_is_refused():
    with pytest.raises(ConfigError, match="unknown algorithm 'sacc'; did you mean 'sac'"):
        make_config(algorithm="sacc")
    with pytest.raises(ConfigError, match="preset 'small' trains dreamer, not ppo: leave out one"):
        make_config("small", algorithm="ppo")


def test_an_unknown_preset_or_mode_names_the_nearest_or_all():
    with pytest.raises(ConfigError, match="unknown preset 'smal'; did you mean 'small'"):
        make_config("smal")
    with pytest.raises(
        ConfigError,
        match="unknown preset 'xyz'; there are: bc, cql, cql-grand-prix, documented, fast-laps, ",
    ):
        make_config("xyz")
    with pytest.raises(ConfigError, match="unknown mode 'tset'; did you mean 'test'"):
        make_config(mode="tset")


@pytest.mark.parametrize(
    ("preset", "numbers"),
    [("small", (512, 64, 32, 4, 64)), ("medium", (2048, 256, 32, 16, 256))],
)
def test_small_and_medium_are_the_public_size1m_and_size12m(preset, numbers):
    config = make_config(preset)
    model = config.dreamer.world_model
    assert numbers == (
        model.recurrent_units,
        model.hidden_units,
        model.latent_groups,
        model.latent_classes,
        model.units,
    )
    assert config.dreamer.actor_critic.units == model.units
    assert (model.encoder_layers, model.decoder_layers) == (3, 3)
    assert config.dreamer.actor_critic.layers == 3
    assert (config.replay.batch_size, config.replay.batch_length) == (16, 64)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_in_every_mode_survives_a_round_trip_through_json(tmp_path, preset, mode):
    config = make_config(preset, mode, seed=5)
    file = tmp_path / "config.json"
    file.write_text(dump_config(config))
    assert load_config(file) == config
    assert config.preset == preset


def test_a_stored_config_takes_overrides(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(dump_config(make_config("small")))
    config = load_config(file, ["training.cars=2"])
    assert config == make_config("small", overrides=["training.cars=2"])


def test_a_stored_config_of_another_version_is_refused(tmp_path):
    file = tmp_path / "config.json"
    file.write_text('{"sede": 1}')
    with pytest.raises(ConfigError, match="unknown setting 'sede'; did you mean 'seed'"):
        load_config(file)
    with pytest.raises(ConfigError, match=r"cannot read the config .*absent\.json"):
        load_config(tmp_path / "absent.json")


def test_test_mode_makes_every_preset_small_and_keeps_its_algorithm():
    for preset in PRESETS:
        config = make_config(preset, "test")
        assert config.dreamer.world_model.recurrent_units == 64
        assert config.dreamer.actor_critic.units == 32
        assert config.algorithm == make_config(preset).algorithm
        assert config.training.env_steps <= 8192


def test_an_environment_that_is_not_a_section_is_refused_in_a_sentence():
    with pytest.raises(ConfigError, match="environment = 3: Input should be a valid dictionary"):
        make_config(overrides=["environment=3"])


@pytest.mark.parametrize("algorithm", ["cql", "iql"])
def test_recorded_laps_of_the_grand_prix_are_discounted_less(algorithm: str) -> None:
    config = make_config(algorithm=algorithm, world="grand-prix-3")
    assert config.preset == f"{algorithm}-grand-prix"
    assert getattr(config, algorithm).discount == 0.997
    assert getattr(make_config(algorithm=algorithm), algorithm).discount == 0.99
