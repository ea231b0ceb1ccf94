"""What the NetworkPolicies let through, and what they do not: a table of connections."""

import pytest

from tests.k8s.manifests import (
    NAMESPACE,
    OVERLAYS,
    name_of,
    needs_kustomize,
    of_kind,
    pods,
    rendered,
)
from tests.k8s.network import Peer, is_allowed, selected

pytestmark = needs_kustomize

_OUTSIDE = {
    "operator": ("kuberay-system", {"app.kubernetes.io/name": "kuberay-operator"}, {}),
    "neighbour of the operator": ("kuberay-system", {"app.kubernetes.io/name": "other"}, {}),
    "prometheus": ("monitoring", {"app.kubernetes.io/name": "prometheus"}, {}),
    "grafana": ("monitoring", {"app.kubernetes.io/name": "grafana"}, {}),
    "proxy": ("ingress-nginx", {}, {"rlcar/proxy": "true"}),
    "client": ("cars", {}, {"rlcar/client": "true"}),
    "stranger": ("other", {"app.kubernetes.io/component": "submitter"}, {}),
    "false prometheus": ("other", {"app.kubernetes.io/name": "prometheus"}, {}),
    "dns": ("kube-system", {"k8s-app": "kube-dns"}, {}),
    "neighbour of dns": ("kube-system", {"k8s-app": "other"}, {}),
}
_ADDRESSES = {"store": "203.0.113.7", "metadata": "169.254.169.254", "api": "10.96.0.1"}
_WITH_STORE = {"rlcar/object-store": "true"}  # the label that the README adds
_ANY = 34567  # a port that Ray chooses

# overlay: (from, to, port, whether it is allowed). Protocol UDP is written as a negative port.
FLOWS = {
    "gpu": [
        ("head", "learner", _ANY, True),
        ("learner", "head", 6379, True),
        ("sim", "head", 6379, True),
        ("sim", "learner", _ANY, True),
        ("learner", "sim", _ANY, True),
        ("sim", "sim", _ANY, True),
        ("submitter", "head", 8265, True),
        ("operator", "head", 8265, True),
        ("prometheus", "head", 8080, True),
        ("prometheus", "learner", 8080, True),
        ("prometheus", "sim", 8080, True),
        ("head", "dns", -53, True),
        ("sim", "dns", 53, True),
        ("submitter", "dns", -53, True),
        ("backup", "dns", -53, True),
        ("submitter", "head", 6379, False),
        ("submitter", "head", 10001, False),
        ("submitter", "learner", 8265, False),
        ("submitter", "store", 443, False),
        ("operator", "head", 6379, False),
        ("operator", "learner", 8265, False),
        ("neighbour of the operator", "head", 8265, False),
        ("prometheus", "head", 8265, False),
        ("prometheus", "submitter", 8080, False),
        ("grafana", "head", 8080, False),
        ("false prometheus", "head", 8080, False),
        ("stranger", "head", 8265, False),
        ("stranger", "sim", _ANY, False),
        ("client", "head", 8265, False),
        ("proxy", "head", 8265, False),
        ("backup", "head", 8265, False),
        ("head", "backup", _ANY, False),
        ("head", "store", 443, False),
        ("learner", "store", 443, False),
        ("backup", "store", 443, False),
        ("backup, to a store", "store", 443, True),
        ("backup, to a store", "store", 80, False),
        ("backup, to a store", "metadata", 443, False),
        ("backup, to a store", "metadata", 80, False),
        ("head", "metadata", 80, False),
        ("sim", "metadata", 80, False),
        ("head", "api", 443, False),
        ("head", "neighbour of dns", 53, False),
        ("head", "stranger", 443, False),
        ("evaluation", "learner", _ANY, False),
    ],
    "job": [
        ("prometheus", "train", 9464, True),
        ("train", "dns", -53, True),
        ("prometheus", "train", 22, False),
        ("stranger", "train", 9464, False),
        ("train", "store", 443, False),
        ("train, to a store", "store", 443, True),
        ("train", "api", 443, False),
        ("train", "train", _ANY, False),
    ],
    "serve": [
        ("proxy", "server", 8000, True),
        ("proxy", "page", 8000, True),
        ("client", "server", 8000, True),
        ("prometheus", "server", 8000, True),
        ("prometheus", "page", 8000, True),
        ("server", "dns", -53, True),
        ("stranger", "server", 8000, False),
        ("stranger", "page", 8000, False),
        ("proxy", "server", 8404, False),
        ("grafana", "server", 8000, False),
        ("operator", "server", 8000, False),
        ("backup", "server", 8000, False),
        ("server", "page", 8000, False),
        ("server", "store", 443, False),
        ("server", "metadata", 80, False),
        ("server", "api", 443, False),
        ("page", "stranger", 80, False),
    ],
    "serve-ray": [
        ("head", "replicas", _ANY, True),
        ("replicas", "head", 6379, True),
        ("replicas", "replicas", _ANY, True),
        ("operator", "head", 8265, True),
        ("operator", "head", 8000, True),
        ("operator", "replicas", 8000, True),
        ("proxy", "replicas", 8000, True),
        ("proxy", "head", 8000, True),
        ("client", "replicas", 8000, True),
        ("prometheus", "replicas", 8000, True),
        ("prometheus", "head", 8080, True),
        ("proxy", "head", 8265, False),
        ("client", "head", 8265, False),
        ("client", "replicas", 8404, False),
        ("stranger", "head", 8265, False),
        ("stranger", "replicas", 8000, False),
        ("replicas", "store", 443, False),
        ("head", "api", 443, False),
    ],
    "serve-ray-upgrade": [
        ("head", "api", 443, True),
        ("proxy", "replicas", 8000, True),
        ("replicas", "api", 443, False),
    ],
    "monitoring": [
        ("prometheus", "monitor", 9465, True),
        ("grafana", "monitor", 9465, False),
        ("stranger", "monitor", 9465, False),
        ("monitor", "store", 443, False),
        ("monitor", "api", 443, False),
    ],
    "campaign": [
        ("prometheus", "head", 9465, True),
        ("stranger", "head", 9465, False),
    ],
    "autoscaling": [
        ("head", "api", 443, True),
        ("head", "api", 6443, True),
        ("head", "metadata", 443, False),
        ("learner", "api", 443, False),
        ("sim", "api", 6443, False),
    ],
    "fault-tolerant": [
        ("head", "redis", 6379, True),
        ("cleanup", "redis", 6379, True),
        ("learner", "redis", 6379, False),
        ("sim", "redis", 6379, False),
        ("backup", "redis", 6379, False),
        ("stranger", "redis", 6379, False),
        ("operator", "redis", 6379, False),
        ("redis", "head", 6379, False),
        ("redis", "store", 443, False),
        ("head", "redis", 22, False),
    ],
}
_CASES = [(overlay, *flow) for overlay, flows in FLOWS.items() for flow in flows]


def _peers(overlay):
    found = {
        name: Peer(namespace, labels, {"kubernetes.io/metadata.name": namespace, **own})
        for name, (namespace, labels, own) in _OUTSIDE.items()
    }
    found |= {name: Peer(address=address) for name, address in _ADDRESSES.items()}
    for pod in pods(rendered(overlay)):
        own = {"kubernetes.io/metadata.name": NAMESPACE}
        name = pod.labels.get("ray.io/group") if pod.role == "worker" else pod.role
        if pod.role == "pod":
            name = pod.spec["containers"][0]["name"]
        if name == "server":  # both Deployments have a container of this name
            name = pod.labels["app.kubernetes.io/component"]
        found[name] = Peer(NAMESPACE, pod.labels, own)
        found[f"{name}, to a store"] = Peer(NAMESPACE, pod.labels | _WITH_STORE, own)
        if pod.role == "head":  # the Job that KubeRay makes of the head's template
            cleanup = pod.labels | {"ray.io/node-type": "redis-cleanup"}
            found["cleanup"] = Peer(NAMESPACE, cleanup, own)
    return found


@pytest.mark.parametrize(("overlay", "source", "target", "port", "allowed"), _CASES)
def test_exactly_the_connections_of_the_table_are_allowed(overlay, source, target, port, allowed):
    peers, policies = _peers(overlay), of_kind(rendered(overlay), "NetworkPolicy")
    protocol = "TCP" if port > 0 else "UDP"
    answer = is_allowed(policies, peers[source], peers[target], abs(port), protocol)
    assert answer == allowed


def test_every_policy_selects_pods_that_exist():
    policies, labels = {}, []
    for overlay in OVERLAYS:
        policies |= {name_of(one): one for one in of_kind(rendered(overlay), "NetworkPolicy")}
        labels += [pod.labels for pod in pods(rendered(overlay))]
    documented = {"NetworkPolicy rlcar-object-store"}  # for pods to which the README adds a label
    idle = {
        name
        for name, policy in policies.items()
        if not any(selected(policy, one) for one in labels)
    }
    assert idle == documented
    assert len(policies) >= 10


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_isolated_in_both_directions(overlay):
    policies = of_kind(rendered(overlay), "NetworkPolicy")
    for pod in pods(rendered(overlay)):
        types = {
            direction
            for policy in policies
            if selected(policy, pod.labels)
            for direction in policy["spec"]["policyTypes"]
        }
        assert types == {"Ingress", "Egress"}, pod.owner
