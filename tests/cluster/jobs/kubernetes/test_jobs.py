"""Jobs on Kubernetes: created, listed, scaled, stopped, deleted; on the fake or a real server."""

import json

import pytest
import yaml

from cluster.jobs.kubernetes.paths import PODS, RAY_CLUSTERS, RAY_JOBS
from tests.support.kubernetes.cleanup import empty_namespace

pytestmark = pytest.mark.kubernetes_client


def submit(rlcar, kube, name, *options, arguments=("train", "--mode", "test")):
    words = ["--name", name, "--image", "rlcar:1", "--detach", *options]
    code, out, err = rlcar("submit", *kube.submit_options, *words, "--", *arguments)
    assert code == 0, err
    return out, err


def sim_replicas(cluster):
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    return groups["sim"]["replicas"]


def running(kube, name):
    """Waits until KubeRay has asked Ray for the state of a job; returns the job."""
    kube.submitter(name)

    def get():
        job = kube.api.get(RAY_JOBS, name)
        return job if job["status"].get("jobStatus") == "RUNNING" else None

    return kube.wait(f"the state of {name}", get)


def test_a_submitted_job_has_what_the_options_say(rlcar, kube):
    submit(
        rlcar, kube, "options", "--workers", "3", "--retries", "1", "--skip-checks", "--gpus", "1"
    )
    spec = kube.api.get(RAY_JOBS, "options")["spec"]
    assert spec["entrypoint"].startswith("rlcar train --mode test --address auto --runs /var/lib")
    assert spec["backoffLimit"] == 1
    assert sim_replicas(spec["rayClusterSpec"]) == 3
    learner = spec["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]
    assert learner["containers"][0]["image"] == "rlcar:1"
    assert int(learner["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]) == 1


def test_a_running_job_is_listed_scaled_and_stopped(rlcar, kube):
    submit(rlcar, kube, "cycle", "--workers", "1")
    job = running(kube, "cycle")
    code, out, err = rlcar("jobs", "list", *kube.options, "--json")
    (row,) = json.loads(out)
    assert (row["job"], row["namespace"]) == ("cycle", kube.namespace)
    assert (row["state"], row["workers"], row["command"]) == ("running", 1, "train --mode test")

    code, out, err = rlcar("jobs", "scale", "cycle", "--workers", "2", *kube.options)
    assert code == 0, err
    assert "1 worker pods before, 2 now" in err
    cluster = job["status"]["rayClusterName"]
    assert sim_replicas(kube.api.get(RAY_CLUSTERS, cluster)["spec"]) == 2
    # A further try of the job begins with what the RayJob says.
    assert sim_replicas(kube.api.get(RAY_JOBS, "cycle")["spec"]["rayClusterSpec"]) == 2
    labels = f"ray.io/cluster={cluster}"
    kube.wait("the fourth pod", lambda: len(kube.api.list_all(PODS, labels=labels)["items"]) == 4)

    code, out, err = rlcar("jobs", "delete", "cycle", *kube.options)
    assert code == 2
    assert "cycle has not ended (running): end it first with: rlcar jobs stop cycle" in err

    code, out, err = rlcar("jobs", "stop", "cycle", *kube.options)
    assert code == 0, err
    assert "its 4 pods may take 60 s to save and end" in err
    assert not kube.api.list_all(RAY_JOBS)["items"]
    assert not kube.api.list_all(PODS, labels=labels)["items"]


def test_beyond_its_limits_the_group_of_a_job_gets_new_limits(rlcar, kube):
    submit(rlcar, kube, "limits")
    running(kube, "limits")
    rlcar("jobs", "scale", "limits", "--workers", "0", *kube.options)
    spec = kube.api.get(RAY_JOBS, "limits")["spec"]["rayClusterSpec"]
    group = next(group for group in spec["workerGroupSpecs"] if group["groupName"] == "sim")
    assert (group["replicas"], group["minReplicas"]) == (0, 0)


def test_jobs_of_all_namespaces_are_listed(rlcar, kube):
    submit(rlcar, kube, "everywhere", "--queue", "none", "--skip-checks")
    code, out, err = rlcar("jobs", "list", *kube.options, "--all-namespaces", "--json")
    rows = {(row["namespace"], row["job"]): row for row in json.loads(out)}
    assert rows[kube.namespace, "everywhere"]["state"] == "queued"
    assert code == 0, err


def test_a_queued_job_is_not_scaled_and_can_be_deleted(rlcar, kube):
    submit(rlcar, kube, "queued", "--queue", "some-queue", "--skip-checks")
    job = kube.api.get(RAY_JOBS, "queued")
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "some-queue"
    code, out, err = rlcar("jobs", "scale", "queued", "--workers", "2", *kube.options)
    assert code == 2
    assert "Kueue has reserved quota in queue some-queue for a fixed number of pods" in err
    code, out, err = rlcar("jobs", "delete", "queued", *kube.options)
    assert (code, err) == (0, "queued: deleted\n")


def test_a_dry_run_of_the_server_prints_the_object_and_creates_nothing(rlcar, kube):
    words = ("--name", "dry", "--dry-run", "server", "--", "train")
    code, out, err = rlcar("submit", *kube.submit_options, *words)
    assert code == 0, err
    printed = yaml.safe_load(out)
    assert printed["metadata"]["uid"]
    assert printed["metadata"]["namespace"] == kube.namespace
    assert not kube.api.list_all(RAY_JOBS)["items"]


def test_a_name_that_is_taken_is_refused(rlcar, kube):
    submit(rlcar, kube, "twice")
    code, out, err = rlcar("submit", *kube.submit_options, "--name", "twice", "--", "train")
    assert code == 2
    assert (
        f"rayjobs twice exists already in namespace {kube.namespace}: choose another --nam" in err
    )


def test_apply_changes_a_job_and_names_who_owns_a_field(rlcar, kube):
    submit(rlcar, kube, "applied", "--queue", "a", "--skip-checks", "--retries", "1")
    submit(rlcar, kube, "applied", "--queue", "a", "--skip-checks", "--retries", "2", "--apply")
    assert kube.api.get(RAY_JOBS, "applied")["spec"]["backoffLimit"] == 2
    change = {"op": "replace", "path": "/spec/backoffLimit", "value": 7}
    kube.patch_as("someone", "applied", [change])
    words = [
        *kube.submit_options,
        "--name",
        "applied",
        "--queue",
        "a",
        "--apply",
        "--detach",
        "--retries",
    ]
    code, out, err = rlcar("submit", *words, "3", "--skip-checks", "--", "train")
    assert code == 2
    assert "fields that another manager owns: .spec.backoffLimit by someone; leave them" in err
    code, out, err = rlcar(
        "submit", *words, "3", "--force-conflicts", "--skip-checks", "--", "train"
    )
    assert code == 0, err
    assert kube.api.get(RAY_JOBS, "applied")["spec"]["backoffLimit"] == 3


def test_an_unknown_job_names_the_nearest(rlcar, kube):
    submit(rlcar, kube, "known-job")
    code, out, err = rlcar("jobs", "stop", "known-jib", *kube.options)
    assert (code, err) == (
        2,
        f"error: namespace {kube.namespace} has no job 'known-jib'; did you mean 'known-job'?\n",
    )


def test_a_namespace_is_emptied_of_objects_that_nobody_finalizes(kube):
    metadata = {"name": "held", "finalizers": ["test.rlcar/held"]}
    cluster = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": metadata}
    pod = {"spec": {"containers": [{"name": "ray-head", "image": "rlcar:1"}]}}
    group = {"rayStartParams": {}, "template": pod}
    spec = {"headGroupSpec": group, "workerGroupSpecs": []}
    kube.api.create(RAY_CLUSTERS, cluster | {"spec": spec})
    empty_namespace(kube.api, patience_s=0.5)
    assert kube.api.list_all(RAY_CLUSTERS)["items"] == []
