"""Cluster settings: what is refused, and how it is said."""

import pytest

from cluster.config import ClusterConfig, make_cluster_config, parse_cluster_settings
from rlcar.errors import ConfigError


def test_nothing_given_means_the_defaults():
    assert make_cluster_config() == ClusterConfig()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("simulators", -1),
        ("simulators", 0),
        ("simulator_cpus", 0.0),
        ("learner_gpus", -1.0),
        ("simulator_deadline_s", 0.0),
        ("start_deadline_s", float("nan")),
        ("blocks_in_flight", 0),
        ("learner_queue", 0),
        ("most_restarts_in_a_row", -1),
        ("connect_timeout_s", float("inf")),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_value(name, value):
    with pytest.raises(ConfigError) as caught:
        make_cluster_config(**{name: value})
    assert str(caught.value).startswith(f"--{name} {value!r}: ")


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("simulators=auto", "simulators", "auto"),
        ("simulators=3", "simulators", 3),
        ("simulator_cpus=0.5", "simulator_cpus", 0.5),
        ("learner_cpus=2", "learner_cpus", 2.0),
        ("address=head:6379", "address", "head:6379"),
    ],
)
def test_a_setting_is_read_as_name_and_value(text, name, value):
    config = make_cluster_config(**parse_cluster_settings([text]))
    assert getattr(config, name) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("simulator_cpu=0.5", "did you mean 'simulator_cpus'"),
        ("simulators", "is not name=value"),
    ],
)
def test_what_is_not_a_setting_is_refused(text, reason):
    with pytest.raises(ConfigError, match=reason):
        parse_cluster_settings([text])


def test_simulators_are_a_number_or_auto():
    with pytest.raises(ConfigError, match="--simulators 'many': "):
        make_cluster_config(simulators="many")


def test_an_unknown_setting_is_named():
    with pytest.raises(ConfigError, match="--simulatrs 2: "):
        make_cluster_config(simulatrs=2)
