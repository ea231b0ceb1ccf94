"""Targets carry the labels that alerts and inhibitions need, as Prometheus itself relabels them."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.monitoring.rules import MONITORING, ROOT, read
from tests.deploy.monitoring.test_rules import NEEDS

OVERLAYS = ROOT / "k8s" / "overlays"
SERVERS = ROOT / "k8s" / "base" / "server"
_META = "__meta_kubernetes"


def relabelled(folder: Path, endpoint: dict[str, Any], labels: dict[str, str]) -> dict[str, str]:
    """The labels of a target after the relabelings of an object of the Prometheus operator."""
    targets = folder / "targets.json"
    targets.write_text(json.dumps([{"targets": ["10.0.0.1"], "labels": labels}]))
    rules = [
        {re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", name): rule[name] for name in rule}
        for rule in endpoint["relabelings"]
    ]
    job = {"job_name": "all", "file_sd_configs": [{"files": [str(targets)]}]}
    config = {"scrape_configs": [job | {"relabel_configs": rules}]}
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    answer = subprocess.run(
        ["promtool", "check", "service-discovery", "--timeout=1s", "prometheus.yaml", "all"],
        **{"cwd": folder, "capture_output": True, "text": True, "check": True},
    )
    (found,) = json.loads(answer.stdout)
    return found["labels"]


def metadata(kind: str, labels: dict[str, str]) -> dict[str, str]:
    """What Prometheus discovers about the labels of a pod or a Service."""
    return {f"{_META}_{kind}_label_{re.sub(r'[^a-zA-Z0-9]', '_', k)}": v for k, v in labels.items()}


@NEEDS["promtool"]
@pytest.mark.parametrize(
    ("manifest", "added", "run"),
    [
        ("job/job-train.yaml", {"job-name": "rlcar-train-local"}, "train-local"),
        (
            "job-indexed/job-seeds.yaml",
            {"job-name": "rlcar-seeds", "job-completion-index": "3"},
            "seed-3",
        ),
        ("cron/cronjob-train.yaml", {"job-name": "rlcar-nightly-7"}, "rlcar-nightly-7"),
    ],
)
def test_a_training_on_kubernetes_is_a_target_with_the_name_of_its_run(
    manifest, added, run, tmp_path
):
    spec = read(OVERLAYS / manifest)["spec"]
    template = spec.get("jobTemplate", {"spec": spec})["spec"]["template"]
    (container,) = template["spec"]["containers"]
    words = " ".join(container["args"])
    for variable, label in (
        ("JOB_NAME", "job-name"),
        ("JOB_COMPLETION_INDEX", "job-completion-index"),
    ):
        words = words.replace(f"$({variable})", added.get(label, ""))
    assert f"--name {run} " in words
    # The controller of Jobs adds these labels to its pods.
    labels = template["metadata"]["labels"] | {
        f"batch.kubernetes.io/{k}": v for k, v in added.items()
    }
    port = str(container["ports"][0]["containerPort"])
    discovered = metadata("pod", labels) | {f"{_META}_pod_container_port_number": port}
    monitor = read(MONITORING / "kubernetes" / "podmonitor-trainers.yaml")["spec"]
    *_, endpoint = monitor["podMetricsEndpoints"]
    assert endpoint["honorLabels"]
    found = relabelled(tmp_path, endpoint, discovered)
    assert (found["job"], found["run"]) == ("rlcar-training", run)


def test_the_training_of_the_compose_file_is_a_target_with_the_name_of_its_run():
    command = read(ROOT / "deploy" / "compose.yaml")["services"]["trainer"]["command"]
    (job,) = [
        one
        for one in read(MONITORING / "prometheus.yaml")["scrape_configs"]
        if one["job_name"] == "rlcar-training"
    ]
    (rule,) = job["relabel_configs"]
    assert rule == {"target_label": "run", "replacement": "main"}
    assert f" --name {rule['replacement']} " in command
    assert job["honor_labels"]


@NEEDS["promtool"]
@pytest.mark.parametrize("name", ["server", "page"])
def test_a_page_on_kubernetes_is_no_policy_server_that_must_have_a_model(name, tmp_path):
    (endpoint,) = read(MONITORING / "kubernetes" / "servicemonitor-servers.yaml")["spec"][
        "endpoints"
    ]
    service = read(SERVERS / f"service-{name}.yaml")["metadata"]["labels"]
    found = relabelled(tmp_path, endpoint, metadata("service", service))
    assert found["job"] == f"rlcar-{name}"
