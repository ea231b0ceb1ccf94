"""Each descriptor is complete, and asking it costs no import of JAX."""

import operator
import subprocess
import sys

import pytest

from rlcar.agents import ALGORITHMS, DEFAULT_ALGORITHM, algorithm_of, make_agent
from rlcar.config import Config, make_config, merge, parse_config
from rlcar.config.presets import PRESETS
from rlcar.errors import ConfigError
from rlcar.sim import SPEC
from rlcar.types import Spec

HEAVY = "('jax', 'haiku', 'optax')"


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_descriptor_has_presets_a_section_and_a_learning_rate(name):
    algorithm = ALGORITHMS[name]
    config = make_config(algorithm=name)
    assert algorithm_of(config) is algorithm
    assert config.preset == algorithm.default_preset
    assert type(config.algorithm_settings) is algorithm.settings
    assert operator.attrgetter(algorithm.learning_rate_name)(config) > 0.0
    for preset, tree in algorithm.presets.items():
        assert PRESETS[preset] is tree
        assert make_config(preset).algorithm == name
    others = algorithm.grand_prix_preset, algorithm.gymnasium_preset
    assert {preset for preset in others if preset} <= algorithm.presets.keys()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_settings_for_recorded_data_and_for_going_on_by_driving_are_settings(name):
    algorithm = ALGORITHMS[name]
    tree = merge(make_config(algorithm=name).model_dump(), algorithm.offline)
    config = parse_config(merge(tree, algorithm.fine_tuning))
    assert config.algorithm == name
    assert bool(algorithm.fine_tuning) == (algorithm.learns_offline and algorithm.learns_online)


def test_the_conservative_loss_has_a_smaller_weight_while_driving_than_for_recorded_data():
    """This compares the two settings. docs/experiments.md has the effect on driving."""
    recorded = make_config(algorithm="cql").cql.conservative_scale
    driving = ALGORITHMS["cql"].fine_tuning["cql"]["conservative_scale"]
    assert 0.0 < driving <= 0.1 * recorded


def test_no_preset_belongs_to_two_algorithms():
    names = [preset for algorithm in ALGORITHMS.values() for preset in algorithm.presets]
    assert len(names) == len(set(names)) == len(PRESETS)


def test_the_sections_lie_in_the_config_in_the_order_of_the_table():
    fields = list(Config.model_fields)
    first = fields.index(DEFAULT_ALGORITHM)
    assert fields[first : first + len(ALGORITHMS)] == list(ALGORITHMS)
    assert fields[first - 1] == "algorithm"


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_arrays_of_the_policy_have_the_shapes_that_the_descriptor_names(name):
    """`tests/serve/policy` compares them with the arrays of the learner."""
    config = make_config(algorithm=name)
    shapes = ALGORITHMS[name].array_shapes(config.algorithm_settings, 6, 2)
    assert shapes
    assert all(size > 0 for shape in shapes.values() for size in shape)


@pytest.mark.parametrize(
    "spec",
    [
        Spec(6, 3, is_discrete=True),
        Spec(0, 2, image_shape=(16, 16, 3)),
        Spec(0, 3, is_discrete=True, image_shape=(16, 16, 3)),
    ],
)
def test_a_refusal_names_exactly_the_algorithms_that_support_the_environment(spec):
    able = {name for name, algorithm in ALGORITHMS.items() if algorithm.supports(spec)}
    assert able < ALGORITHMS.keys()
    for name in ALGORITHMS.keys() - able:
        with pytest.raises(ConfigError) as refusal:
            make_agent(make_config(algorithm=name), spec)
        assert set(str(refusal.value).partition("--algorithm ")[2].split(" or ")) == able


def test_all_algorithms_support_the_race():
    assert all(algorithm.supports(SPEC) for algorithm in ALGORITHMS.values())


@pytest.mark.parametrize(
    "code",
    [
        f"import rlcar.config; heavy = (*{HEAVY}, 'numpy')",
        "from rlcar.agents import ALGORITHMS\n"
        "for algorithm in ALGORITHMS.values(): algorithm.load_numpy_policy()\n"
        f"heavy = {HEAVY}",
    ],
    ids=["settings", "numpy-policies"],
)
def test_settings_and_numpy_policies_import_nothing_heavy(code):
    check = "import sys; assert not [name for name in heavy if name in sys.modules]"
    subprocess.run([sys.executable, "-c", f"{code}\n{check}"], check=True)
