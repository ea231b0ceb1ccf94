"""Every object passes its schema; and the schemas and lints do find mistakes."""

import copy

import pytest
import yaml

from tests.k8s.cron import cron_problem
from tests.k8s.manifests import (
    K8S,
    NAMESPACE,
    OVERLAYS,
    RAY_KINDS,
    name_of,
    needs_kustomize,
    of_kind,
    rendered,
)
from tests.k8s.operator_rules import problems as operator_problems
from tests.k8s.schemas import job_problems, problems

_CLUSTER_SCOPED = {
    "Namespace",
    "PriorityClass",
    "ClusterQueue",
    "ResourceFlavor",
    "WorkloadPriorityClass",
}


@needs_kustomize
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_of_an_overlay_is_valid(overlay):
    objects = rendered(overlay)
    assert len(objects) == len({(name_of(one)) for one in objects})
    found = [f"{name_of(one)}: {problem}" for one in objects for problem in problems(one)]
    found += [
        f"{name_of(one)}: {problem}"
        for kind in ("Job", "CronJob")
        for one in of_kind(objects, kind)
        for problem in job_problems(one)
    ]
    # The README says that this overlay needs the gate.
    gates = frozenset({"RayCronJob"} if overlay.startswith("cron-ray") else ())
    found += [
        f"{name_of(one)}: {problem}"
        for kind in RAY_KINDS
        for one in of_kind(objects, kind)
        for problem in operator_problems(one, gates)
    ]
    assert found == []


@needs_kustomize
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_in_the_namespace_and_labelled(overlay):
    for one in rendered(overlay):
        metadata = one["metadata"]
        if one["kind"] not in _CLUSTER_SCOPED:
            assert metadata.get("namespace") in (NAMESPACE, "monitoring"), name_of(one)
        assert metadata["labels"]["app.kubernetes.io/part-of"] == "rlcar", name_of(one)
        assert one["kind"] != "Secret", "secrets are made by hand (README)"


def _files():
    return sorted(
        path for folder in ("base", "overlays") for path in (K8S / folder).rglob("*.yaml")
    )


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(K8S)))
def test_a_file_is_named_after_the_kinds_in_it(path):
    text = path.read_text()
    assert text.startswith(("#", "apiVersion")), "JSON 6902 patches say why they are"
    documents = list(yaml.load_all(text, yaml.CSafeLoader))
    if path.stem in ("kustomization", "sweep", "campaign"):
        return
    for document in documents:
        if isinstance(document, list):  # a patch is named after the file that it patches
            assert all(entry["op"] in ("add", "replace", "remove") for entry in document)
            continue
        kind = path.stem.partition("-")[0].removesuffix("es").removesuffix("s")
        kinds = document["kind"].lower()
        assert kinds.startswith(kind) or kinds.startswith(path.stem.partition("-")[0].rstrip("s"))


def _changed(document, path, value):
    changed = copy.deepcopy(document)
    *parents, last = path.split("/")
    place = changed
    for name in parents:
        place = place[int(name) if isinstance(place, list) else name]
    place[int(last) if isinstance(place, list) else last] = value
    return changed


@needs_kustomize
@pytest.mark.parametrize(
    ("overlay", "kind", "path", "value"),
    [
        ("gpu", "RayJob", "spec/entrypiont", "rlcar"),
        ("gpu", "RayJob", "spec/backoffLimit", "three"),
        ("gpu", "RayJob", "spec/rayClusterSpec/headGroupSpec/template/spec/contaners", []),
        (
            "gpu",
            "RayJob",
            "spec/rayClusterSpec/workerGroupSpecs/0/template/spec/volumes/0/nam",
            "x",
        ),
        ("gpu", "RayJob", "spec/submissionMode", 3),
        ("gpu", "RayJob", "apiVersion", "ray.io/v1alpha1"),
        ("serve-ray", "RayService", "spec/serveConfigV2", {"applications": []}),
        ("serve-ray", "RayService", "spec/rayClusterConfig/headGroupSpec/rayStartParams", ["a"]),
        ("cron-ray", "RayCronJob", "spec/jobTemplate/spec", {}),
        ("cron-ray", "RayCronJob", "spec/concurrency", "Forbid"),
        ("fault-tolerant", "RayCluster", "spec/gcsFaultToleranceOptions/redisAdress", "redis"),
        ("fault-tolerant", "RayCluster", "spec/enableInTreeAutoscaling", "yes"),
        ("serve", "Deployment", "spec/template/spec/containers/0/imagePullPolcy", "Always"),
        ("serve", "Deployment", "spec/template/spec/containers/0/env/0/value", 1),
        ("serve", "HorizontalPodAutoscaler", "spec/minReplicas", "2"),
        ("serve", "HorizontalPodAutoscaler", "kind", "PodAutoscaler"),
        ("serve-gateway", "Gateway", "spec/listeners/0/port", "443"),
        ("serve-gateway", "HTTPRoute", "spec/rules/0/timeouts/request", "1 hour"),
        ("serve-gateway", "HTTPRoute", "spec/rules/0/backend", []),
        ("gpu-kueue", "ClusterQueue", "spec/cohort", "rlcar"),
        ("gpu-kueue", "ClusterQueue", "spec/preemption/withinClusterQueue", "Sometimes"),
        ("gpu-kueue", "LocalQueue", "spec/clusterQueue", 3),
    ],
)
def test_a_mistake_is_found(overlay, kind, path, value):
    one = of_kind(rendered(overlay), kind)[0]
    assert problems(one) == []
    assert problems(_changed(one, path, value))


@needs_kustomize
@pytest.mark.parametrize(
    ("overlay", "kind", "path", "value"),
    [
        ("job", "Job", "spec/template/spec/restartPolicy", "Always"),
        ("job", "Job", "spec/template/spec/restartPolicy", "OnFailure"),
        ("job", "Job", "spec/backoffLimitPerIndex", 3),
        ("job", "CronJob", "spec/schedule", "61 * * * *"),
        ("job", "CronJob", "spec/schedule", "0 3 * *"),
        ("job", "CronJob", "spec/jobTemplate/spec/template/spec/restartPolicy", "Always"),
        ("job", "CronJob", "metadata/name", "rlcar-" + 50 * "x"),
        ("job-indexed", "Job", "spec/completionMode", "NonIndexed"),
    ],
)
def test_a_mistake_that_no_schema_finds_is_found(overlay, kind, path, value):
    one = of_kind(rendered(overlay), kind)[0]
    assert list(job_problems(one)) == []
    assert list(job_problems(_changed(one, path, value)))


@pytest.mark.parametrize(
    "line",
    ["30 1 * * *", "*/5 0-6 1,15 jan-jun mon", "@daily", "0 0 ? * 6", "0,30 22 * * mon-fri"],
)
def test_a_valid_cron_line(line):
    assert cron_problem(line) is None


@pytest.mark.parametrize(
    "line",
    [
        "",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 7",
        "* * * foo *",
        "5-1 * * * *",
        "*/0 * * * *",
        "@nightly",
        "-1 * * * *",
        "1, * * * *",
        "*-3 * * * *",
    ],
)
def test_an_invalid_cron_line(line):
    assert cron_problem(line)
