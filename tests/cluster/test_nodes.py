"""Nodes that come and go, and who runs where."""

import time

import pytest
import ray

from cluster.config import ClusterConfig
from cluster.nodes import Node, nodes_now, selector, simulators_that_fit
from cluster.training.fleet import Fleet
from cluster.training.weights import PublishedWeights
from rlcar.agents import make_agent
from rlcar.config import make_config
from rlcar.sim import SPEC
from rlcar.training.trainer import Trainer

PATIENCE_S = 120.0


def node(cpus, role=""):
    return Node(f"{role}{cpus}", float(cpus), 0.0, role)


@pytest.mark.parametrize(
    ("nodes", "settings", "number"),
    [
        ([node(4)], {}, 3),
        ([node(4), node(2)], {}, 5),
        ([node(4), node(2)], {"simulator_cpus": 0.5}, 10),
        ([node(2.5), node(1.5)], {}, 2),
        ([node(4)], {"learner_cpus": 3.0}, 1),
        ([node(1)], {}, 0),
        ([], {}, 0),
        ([node(8), node(4, "sim")], {}, 3),
        ([node(8, "learner"), node(4, "sim"), node(2, "sim")], {}, 6),
    ],
)
def test_simulators_get_the_cores_that_the_learner_leaves(nodes, settings, number):
    assert simulators_that_fit(nodes, ClusterConfig(**settings)) == number


def test_roles_are_asked_for_only_where_the_cluster_has_them():
    assert selector("sim", [node(4), node(2, "sim")]) == {"role": "sim"}
    assert selector("learner", [node(4), node(2, "sim")]) == {}


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.slow
def test_simulators_come_with_a_node_and_go_with_it_without_an_error(start_cluster):
    # Two cores, one of them for the learner.
    small_cluster = start_cluster(num_cpus=2, labels={"role": "sim"})
    config = make_config(mode="test")
    settings = ClusterConfig(simulators="auto", most_restarts_in_a_row=0, learner_cpus=1.0)
    weights = PublishedWeights(
        0, ray.put(Trainer(config, SPEC, make_agent(config, SPEC)).weights())
    )

    def drive_until(done):
        found, end_s = 0, time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < end_s, (len(fleet), fleet.metrics())
            fleet.request_blocks(weights)
            found += len(list(fleet.take_blocks(0.2)))
        return found

    with Fleet(config, settings) as fleet:
        drive_until(lambda: fleet.delivering() == 1)
        assert len(fleet) == 1
        added = small_cluster.add_node(num_cpus=1, labels={"role": "sim"})
        drive_until(lambda: fleet.delivering() == 2)
        node_ids = {location.node_id for location in fleet.locations()}
        assert node_ids == {node.id for node in nodes_now()}
        assert len(node_ids) == 2
        small_cluster.remove_node(added, allow_graceful=False)
        drive_until(lambda: len(fleet) == 1)
        delivered_s = time.monotonic()
        assert drive_until(lambda: time.monotonic() > delivered_s + 3.0) > 0
