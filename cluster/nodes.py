"""What the cluster has for us: nodes by role, their cores; asked in the background."""

import logging
import threading
from typing import NamedTuple

import ray
from ray._private.state import state as ray_state  # the only list of draining nodes there is

from cluster.config import ClusterConfig

_EVERY_S = 2.0

logger = logging.getLogger(__name__)


class Node(NamedTuple):
    """One node that takes work."""

    id: str
    cpus: float
    gpus: float
    role: str  # its label `role`; empty: any


def nodes_now() -> list[Node]:
    """Lists the nodes that are alive and not being drained."""
    draining = set(ray_state.get_draining_nodes())
    return [
        Node(
            one["NodeID"],
            one["Resources"].get("CPU", 0.0),
            one["Resources"].get("GPU", 0.0),
            (one.get("Labels") or {}).get("role", ""),
        )
        for one in ray.nodes()
        if one["Alive"] and one["NodeID"] not in draining
    ]


def selector(role: str, nodes: list[Node]) -> dict[str, str]:
    """The label selector of actors with that role, where the cluster has nodes for it."""
    return {"role": role} if any(node.role == role for node in nodes) else {}


def simulators_that_fit(nodes: list[Node], cluster: ClusterConfig) -> int:
    """How many simulators these nodes have cores for, beside the learner."""
    suited = [node for node in nodes if not selector("sim", nodes) or node.role == "sim"]
    free = sorted(node.cpus for node in suited)
    if free and not selector("learner", nodes):
        free[-1] -= cluster.learner_cpus
    return sum(max(0, int(cpus / cluster.simulator_cpus + 1e-9)) for cpus in free)


class NodeWatch:
    """Knows the nodes as of a moment ago; never waits, not even for a control service."""

    def __init__(self) -> None:
        self.nodes = nodes_now()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="node-watch")
        self._thread.start()

    def stop(self) -> None:
        """Ends the watch."""
        self._stop.set()
        self._thread.join(_EVERY_S)

    def _watch(self) -> None:
        while not self._stop.wait(_EVERY_S):
            try:
                self.nodes = nodes_now()
            except Exception as error:  # whatever Ray raises while its control service restarts
                logger.warning("the cluster's nodes are unknown for now: %s", error)
