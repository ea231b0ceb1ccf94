"""What an object names exists in the same overlay, or the README says how to make it."""

import pytest
import yaml

from tests.k8s.manifests import K8S, OVERLAYS, name_of, needs_kustomize, of_kind, pods, rendered
from tests.k8s.network import matches
from tests.k8s.pod_security import containers

pytestmark = needs_kustomize

_README = (K8S / "README.md").read_text()


def _names(objects, kind):
    return {one["metadata"]["name"] for one in of_kind(objects, kind)}


def _is_documented(secret):
    return (
        f"create secret generic {secret} " in _README or f"create secret tls {secret} " in _README
    )


_VOLUMES = {
    "persistentVolumeClaim": ("PersistentVolumeClaim", "claimName"),
    "configMap": ("ConfigMap", "name"),
    "secret": ("Secret", "secretName"),
}
_SOURCES = {
    "secretRef": "Secret",
    "configMapRef": "ConfigMap",
    "secretKeyRef": "Secret",
    "configMapKeyRef": "ConfigMap",
}


def _references(spec):
    """Yields kind and name of what a pod needs."""
    yield "ServiceAccount", spec["serviceAccountName"]
    if "priorityClassName" in spec:
        yield "PriorityClass", spec["priorityClassName"]
    for volume in spec.get("volumes", []):
        for field in volume.keys() & _VOLUMES.keys():
            kind, name = _VOLUMES[field]
            yield kind, volume[field][name]
    for container in containers(spec):
        variables = [variable.get("valueFrom", {}) for variable in container.get("env", [])]
        for source in [*container.get("envFrom", []), *variables]:
            for field in source.keys() & _SOURCES.keys():
                yield _SOURCES[field], source[field]["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_a_pod_needs_is_there(overlay):
    objects = rendered(overlay)
    for pod in pods(objects):
        for kind, name in _references(pod.spec):
            if kind == "Secret":
                assert _is_documented(name), f"{pod.owner}: Secret {name}"
            else:
                assert name in _names(objects, kind), f"{pod.owner}: {kind} {name}"
        volumes = {volume["name"] for volume in pod.spec.get("volumes", [])}
        mounted = {
            mount["name"] for one in containers(pod.spec) for mount in one.get("volumeMounts", [])
        }
        assert mounted - {"data"} <= volumes, pod.owner  # `data` may be a template of a StatefulSet
        assert volumes <= mounted, f"{pod.owner}: volumes that nothing mounts"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_key_of_a_config_map_that_is_named_exists(overlay):
    objects = rendered(overlay)
    data = {one["metadata"]["name"]: one["data"] for one in of_kind(objects, "ConfigMap")}
    for pod in pods(objects):
        for container in containers(pod.spec):
            for variable in container.get("env", []):
                source = variable.get("valueFrom", {}).get("configMapKeyRef")
                assert source is None or source["key"] in data[source["name"]], pod.owner


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_of_services_budgets_and_scalers_find_their_pods(overlay):
    objects = rendered(overlay)
    everything = list(pods(objects))
    for service in of_kind(objects, "Service"):
        found = [
            pod for pod in everything if service["spec"]["selector"].items() <= pod.labels.items()
        ]
        assert len({pod.owner for pod in found}) == 1, name_of(service)
        ports = {
            port["name"]: port["containerPort"]
            for container in found[0].spec["containers"]
            for port in container.get("ports", [])
        }
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in ports, name_of(service)
    for budget in of_kind(objects, "PodDisruptionBudget"):
        assert any(matches(budget["spec"]["selector"], pod.labels) for pod in everything)
    for scaler in of_kind(objects, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        (scaled,) = [one for one in objects if name_of(one) == f"{target['kind']} {target['name']}"]
        assert "replicas" not in scaled["spec"], "applying it again would undo the scaling"


def _service_ports(objects):
    found = {}
    for service in of_kind(objects, "Service"):
        ports = service["spec"]["ports"]
        found[service["metadata"]["name"]] = {port["name"] for port in ports} | {
            port["port"] for port in ports
        }
    for service in of_kind(objects, "RayService"):  # KubeRay makes this one
        found[f"{service['metadata']['name']}-serve-svc"] = {"serve", 8000}
    return found


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_routes_lead_to_services_and_hosts_agree(overlay):
    objects = rendered(overlay)
    ports = _service_ports(objects)
    for ingress in of_kind(objects, "Ingress"):
        hosts = {host for tls in ingress["spec"]["tls"] for host in tls["hosts"]}
        for tls in ingress["spec"]["tls"]:
            assert _is_documented(tls["secretName"])
        for rule in ingress["spec"]["rules"]:
            assert rule["host"] in hosts
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                port = backend["port"].get("name", backend["port"].get("number"))
                assert port in ports[backend["name"]]
    listeners = {
        (gateway["metadata"]["name"], listener["name"]): listener
        for gateway in of_kind(objects, "Gateway")
        for listener in gateway["spec"]["listeners"]
    }
    for route in of_kind(objects, "HTTPRoute"):
        for parent in route["spec"]["parentRefs"]:
            listener = listeners[parent["name"], parent["sectionName"]]
            assert [listener["hostname"]] == route["spec"]["hostnames"]
        for rule in route["spec"]["rules"]:
            for backend in rule.get("backendRefs", []):
                assert backend["port"] in ports[backend["name"]]
    for listener in listeners.values():
        for certificate in listener.get("tls", {}).get("certificateRefs", []):
            assert _is_documented(certificate["name"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_roles_are_bound_to_accounts_that_exist_and_allow_no_secrets(overlay):
    objects = rendered(overlay)
    for binding in of_kind(objects, "RoleBinding"):
        assert binding["roleRef"]["name"] in _names(objects, "Role")
        for subject in binding["subjects"]:
            assert subject["name"] in _names(objects, "ServiceAccount")
    for role in of_kind(objects, "Role"):
        for rule in role["rules"]:
            assert "*" not in [*rule["resources"], *rule["verbs"], *rule["apiGroups"]]
            assert not {"secrets", "pods/exec", "pods/attach"} & set(rule["resources"])
    assert not of_kind(objects, "ClusterRole")
    assert not of_kind(objects, "ClusterRoleBinding")


def test_queues_name_each_other():
    objects = rendered("gpu-kueue")
    flavors = _names(objects, "ResourceFlavor")
    for queue in of_kind(objects, "ClusterQueue"):
        for group in queue["spec"]["resourceGroups"]:
            assert {flavor["name"] for flavor in group["flavors"]} <= flavors
    for queue in of_kind(objects, "LocalQueue"):
        assert queue["spec"]["clusterQueue"] in _names(objects, "ClusterQueue")
    (job,) = of_kind(objects, "RayJob")
    labels = job["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] in _names(objects, "LocalQueue")
    assert labels["kueue.x-k8s.io/priority-class"] in _names(objects, "WorkloadPriorityClass")
    assert job["spec"]["suspend"] is True
    assert not job["spec"]["rayClusterSpec"].get("enableInTreeAutoscaling")


def test_the_image_of_an_overlay_reaches_every_container_of_a_rayjob():
    for overlay, tag in (("gpu", "latest-gpu"), ("cron-ray", "latest"), ("serve-ray", "latest")):
        images = {
            container["image"]
            for pod in pods(rendered(overlay))
            if pod.role in ("head", "submitter")
            for container in pod.spec["containers"]
        }
        assert images == {f"rlcar:{tag}"}


def test_the_copies_of_the_training_s_pods_are_equal():
    base = yaml.safe_load((K8S / "base" / "rayjob-train.yaml").read_text())["spec"]
    raw = K8S / "overlays" / "fault-tolerant" / "raycluster.yaml"
    cluster = yaml.safe_load(raw.read_text())["spec"]
    del cluster["gcsFaultToleranceOptions"]
    assert cluster == base["rayClusterSpec"]
    raw = K8S / "overlays" / "cron-ray" / "raycronjob.yaml"
    template = yaml.safe_load(raw.read_text())["spec"]["jobTemplate"]
    differs = {name for name in base if base[name] != template.get(name)}
    assert differs == {"entrypoint", "activeDeadlineSeconds"}


def test_every_monitor_finds_ports_and_every_port_with_metrics_a_monitor():
    """Over all overlays, because the objects of `monitoring` watch the pods of the others."""
    everything = [
        (pod, one)
        for overlay in OVERLAYS
        for pod in pods(rendered(overlay))
        for one in [pod.spec["containers"][0]]
    ]
    monitored = set()
    for monitor in of_kind(rendered("monitoring"), "PodMonitor"):
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            found = {
                (pod.owner, endpoint["port"])
                for pod, container in everything
                if matches(monitor["spec"]["selector"], pod.labels)
                and endpoint["port"] in [port["name"] for port in container.get("ports", [])]
            }
            assert found, name_of(monitor)
            monitored |= found
    services = [one for overlay in OVERLAYS for one in of_kind(rendered(overlay), "Service")]
    for monitor in of_kind(rendered("monitoring"), "ServiceMonitor"):
        selector, endpoints = monitor["spec"]["selector"], monitor["spec"]["endpoints"]
        found = [one for one in services if matches(selector, one["metadata"]["labels"])]
        assert {one["metadata"]["name"] for one in found} >= {"rlcar-server", "rlcar-page"}
        for endpoint in endpoints:
            ports = [{port["name"] for port in one["spec"]["ports"]} for one in found]
            assert all(endpoint["port"] in names for names in ports)
            if "authorization" in endpoint:
                assert _is_documented(endpoint["authorization"]["credentials"]["name"])
    exposed = {
        (pod.owner, port["name"])
        for pod, container in everything
        for port in container.get("ports", [])
        if port["name"] in ("metrics", "runs")
    }
    assert exposed <= monitored
