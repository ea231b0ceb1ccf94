"""The nodes of the Ray cluster that accept work: their cores, roles, arrivals and departures."""

import logging
import threading
from typing import NamedTuple

import ray
from ray._private.state import state as ray_state  # no public function lists the draining nodes

from cluster.config import ClusterConfig

_POLL_S = 2.0
# Tolerance when cores are divided: 0.3 / 0.1 is a little less than 3 in floating point.
_ROUNDING = 1e-9

logger = logging.getLogger(__name__)


class Node(NamedTuple):
    """One node that accepts work."""

    id: str
    cpus: float
    gpus: float
    role: str  # its label `role`; empty: accepts every actor


def nodes_now() -> list[Node]:
    """Lists the nodes that are alive and not being drained."""
    draining = set(ray_state.get_draining_nodes())
    return [
        Node(
            node["NodeID"],
            node["Resources"].get("CPU", 0.0),
            node["Resources"].get("GPU", 0.0),
            (node.get("Labels") or {}).get("role", ""),
        )
        for node in ray.nodes()
        if node["Alive"] and node["NodeID"] not in draining
    ]


def selector(role: str, nodes: list[Node]) -> dict[str, str]:
    """Returns the label selector for actors of a role; empty if no node has that label."""
    return {"role": role} if any(node.role == role for node in nodes) else {}


def simulators_that_fit(nodes: list[Node], cluster: ClusterConfig) -> int:
    """Returns how many simulators these nodes have cores for, besides the learner."""
    suitable = [node for node in nodes if not selector("sim", nodes) or node.role == "sim"]
    free_cpus = sorted(node.cpus for node in suitable)
    if free_cpus and not selector("learner", nodes):
        free_cpus[-1] -= cluster.learner_cpus  # the learner is expected on the largest node
    return sum(max(0, int(cpus / cluster.simulator_cpus + _ROUNDING)) for cpus in free_cpus)


class NodeWatch:
    """Lists the nodes every two seconds in a thread, so that `nodes` can be read without waiting.

    While Ray's control service restarts, `nodes` keeps its last value.
    """

    def __init__(self) -> None:
        self.nodes = nodes_now()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="node-watch")
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stop.set()
        self._thread.join(_POLL_S)

    def _watch(self) -> None:
        while not self._stop.wait(_POLL_S):
            try:
                self.nodes = nodes_now()
            except Exception as error:  # whatever Ray raises while its control service restarts
                logger.warning("cannot list the nodes of the Ray cluster for now: %s", error)
