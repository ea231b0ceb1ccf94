"""Evaluates NetworkPolicies: may a pod connect to another pod, or to an address outside?"""

import ipaddress
from typing import Any, NamedTuple

Object = dict[str, Any]


class Peer(NamedTuple):
    """One end of a connection: a pod, or an address outside the cluster."""

    namespace: str = ""
    labels: dict[str, str] = {}
    namespace_labels: dict[str, str] = {}
    address: str = ""  # set for an address outside, which has no labels


def is_allowed(
    policies: list[Object], source: Peer, target: Peer, port: int, protocol: str
) -> bool:
    """Says whether the policies let `source` connect to a port of `target`.

    A connection needs the permission of both ends. An end that no policy selects permits all.
    """
    return _permits(policies, "Egress", source, target, port, protocol) and _permits(
        policies, "Ingress", target, source, port, protocol
    )


def selected(policy: Object, labels: dict[str, str]) -> bool:
    """Says whether a policy applies to pods with these labels in its namespace."""
    return matches(policy["spec"]["podSelector"], labels)


def matches(selector: Object, labels: dict[str, str]) -> bool:
    """Evaluates a label selector."""
    return all(
        labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()
    ) and all(_holds(expression, labels) for expression in selector.get("matchExpressions", []))


def _holds(expression: Object, labels: dict[str, str]) -> bool:
    key, operator = expression["key"], expression["operator"]
    if operator == "In":
        return labels.get(key) in expression["values"]
    if operator == "NotIn":
        return labels.get(key) not in expression["values"]
    if operator == "Exists":
        return key in labels
    assert operator == "DoesNotExist", operator
    return key not in labels


def _permits(
    policies: list[Object], direction: str, own: Peer, other: Peer, port: int, protocol: str
) -> bool:
    if own.address:
        return True  # policies are about pods
    applying = [
        policy
        for policy in policies
        if policy["metadata"]["namespace"] == own.namespace
        and direction in policy["spec"]["policyTypes"]
        and selected(policy, own.labels)
    ]
    peers_field = "from" if direction == "Ingress" else "to"
    return not applying or any(
        _rule_permits(rule, peers_field, policy["metadata"]["namespace"], other, port, protocol)
        for policy in applying
        for rule in policy["spec"].get(direction.lower(), [])
    )


def _rule_permits(
    rule: Object, field: str, namespace: str, other: Peer, port: int, protocol: str
) -> bool:
    ports, peers = rule.get("ports"), rule.get(field)
    has_port = not ports or any(
        entry.get("protocol", "TCP") == protocol
        and entry.get("port", port) <= port <= entry.get("endPort", entry.get("port", port))
        for entry in ports
    )
    return has_port and (not peers or any(_is_peer(peer, namespace, other) for peer in peers))


def _is_peer(peer: Object, namespace: str, other: Peer) -> bool:
    if "ipBlock" in peer:
        if not other.address:
            # Whether addresses of pods match depends on the network plug-in: judge as if not.
            return False
        address, block = ipaddress.ip_address(other.address), peer["ipBlock"]
        return address in ipaddress.ip_network(block["cidr"]) and not any(
            address in ipaddress.ip_network(network) for network in block.get("except", [])
        )
    if other.address:
        return False
    if "namespaceSelector" in peer:
        if not matches(peer["namespaceSelector"], other.namespace_labels):
            return False
    elif other.namespace != namespace:
        return False
    return matches(peer.get("podSelector", {}), other.labels)
