"""The profile `restricted` of the Pod Security Standards, and what this project adds to it."""

from collections.abc import Iterator
from typing import Any

Object = dict[str, Any]

_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_PROFILES = ("RuntimeDefault", "Localhost")


def violations(spec: Object) -> list[str]:
    """Returns what the profile refuses in the spec of a pod."""
    return [
        *_of_pod(spec),
        *(text for one in containers(spec) for text in _of_container(one, spec)),
    ]


def containers(spec: Object) -> list[Object]:
    """Returns the containers of all kinds."""
    kinds = ("initContainers", "containers", "ephemeralContainers")
    return [container for kind in kinds for container in spec.get(kind, [])]


def _of_pod(spec: Object) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield f"{field} is true"
    for volume in spec.get("volumes", []):
        for kind in volume.keys() - {"name"} - _VOLUMES:
            yield f"volume {volume['name']} is a {kind}"
    context = spec.get("securityContext", {})
    if context.get("sysctls"):
        yield "sysctls are set"
    if context.get("runAsUser") == 0:
        yield "runAsUser is 0"


def _of_container(container: Object, spec: Object) -> Iterator[str]:
    name, own = container["name"], container.get("securityContext", {})
    merged = {**spec.get("securityContext", {}), **own}
    if own.get("privileged"):
        yield f"{name} is privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"{name}: allowPrivilegeEscalation is not false"
    if merged.get("runAsNonRoot") is not True or merged.get("runAsUser") == 0:
        yield f"{name} may run as root"
    if merged.get("seccompProfile", {}).get("type") not in _PROFILES:
        yield f"{name} has no seccomp profile"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []):
        yield f"{name} keeps capabilities"
    if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"{name} adds capabilities"
    if own.get("procMount", "Default") != "Default":
        yield f"{name} has a procMount of its own"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield f"{name} takes a port of the host"


def own_violations(spec: Object) -> Iterator[str]:
    """Returns what this project demands beyond the profile."""
    if spec.get("enableServiceLinks") is not False:
        yield "the addresses of Services come into its environment"
    for container in containers(spec):
        name, context = container["name"], container.get("securityContext", {})
        if context.get("readOnlyRootFilesystem") is not True:
            yield f"{name}: the root file system is writable"
        mounts = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
        if container["image"].startswith("rlcar") and "/tmp" not in mounts:
            yield f"{name} has no writable /tmp"
    for container in spec["containers"]:
        resources = container.get("resources", {})
        memory = [resources.get(kind, {}).get("memory") for kind in ("requests", "limits")]
        if memory[0] is None or memory[0] != memory[1]:
            yield f"{container['name']}: memory is {memory[0]} requested, {memory[1]} at most"
        if "cpu" not in resources.get("requests", {}):
            yield f"{container['name']}: no CPU is requested"
    for volume in spec.get("volumes", []):
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            yield f"volume {volume['name']} may fill the node"
