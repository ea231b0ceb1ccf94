"""Cluster settings: what is refused, and how it is said."""

import pytest

from cluster.config import ClusterConfig, make_cluster_config
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


def test_an_unknown_setting_is_named():
    with pytest.raises(ConfigError, match="--simulatrs 2: "):
        make_cluster_config(simulatrs=2)
