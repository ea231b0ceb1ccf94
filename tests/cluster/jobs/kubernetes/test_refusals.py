"""Each refusal of the API is one sentence with its remedy."""

import pytest

from cluster.jobs.kubernetes.paths import NODES, PODS, QUOTAS, RAY_JOBS
from tests.support.kubernetes.server import Fault
from tests.support.kubernetes.store import ApiError

READ_JOBS = {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["get", "list"]}


def refused(rlcar, kube, *options, kubeconfig=None):
    words = list(kube.submit_options)
    if kubeconfig:
        words[words.index("--kubeconfig") + 1] = str(kubeconfig)
    code, out, err = rlcar("submit", *words, "--detach", "--name", "job", *options, "--", "train")
    assert code == 2, err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.kubernetes_client
def test_a_missing_right_is_named_with_its_user(rlcar, kube):
    kubeconfig = kube.user_with([READ_JOBS])
    err = refused(rlcar, kube, kubeconfig=kubeconfig)
    user = f"system:serviceaccount:{kube.namespace}:user-"
    assert f"error: user {user}" in err
    assert f"may not create rayjobs.ray.io in namespace {kube.namespace}: have the role rl" in err


@pytest.mark.kubernetes_client
def test_a_missing_namespace_and_a_missing_claim_are_named(rlcar, kube):
    err = refused(rlcar, kube, "--runs-claim", "no-such-claim")
    assert "there is no persistent volume claim no-such-claim: apply k8s/base/platform" in err
    kube.namespace = "rlcar-no-such-namespace"
    err = refused(rlcar, kube)
    assert "there is no namespace rlcar-no-such-namespace on https://127.0.0.1:" in err
    err = refused(rlcar, kube, "--skip-checks")
    assert "create it with kubectl create namespace rlcar-no-such-namespace" in err


@pytest.mark.kubernetes_client
def test_a_claim_that_cannot_be_shared_is_refused(rlcar, kube):
    kube.add_claim("alone", "ReadWriteOncePod")
    err = refused(rlcar, kube, "--runs-claim", "alone")
    assert "the volume claim alone is ReadWriteOncePod, and 2 pods of the job mount it: use" in err


@pytest.mark.kubernetes_client
def test_more_gpus_than_any_node_has_are_refused(rlcar, kube):
    err = refused(rlcar, kube, "--gpus", "64")
    assert "the job asks for 64 GPU on one node, and the largest node offers " in err


@pytest.mark.kubernetes_client
def test_a_priority_class_that_does_not_exist_is_refused(rlcar, kube):
    err = refused(rlcar, kube, "--priority-class", "absent")
    assert "the cluster has no PriorityClass absent: apply k8s/base/platform, or name ano" in err


@pytest.mark.kubernetes_client
def test_a_queue_that_does_not_exist_is_refused(rlcar, kube):
    err = refused(rlcar, kube, "--queue", "no-such-queue")
    assert "no-such-queue" in err or "Kueue is not installed" in err


@pytest.mark.kubernetes_client
def test_a_quota_that_is_used_up_is_named(rlcar, kube):
    hard = {"count/rayjobs.ray.io": "0"}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "team"}}
    kube.api.create(QUOTAS, quota | {"spec": {"hard": hard}})
    # A real server first says that it has not counted yet.
    err = kube.wait("the quota", lambda: _unless_uncounted(refused(rlcar, kube)))
    assert "quota team is exceeded: requested count/rayjobs.ray.io=1, used count/rayj" in err


def _unless_uncounted(err):
    return "" if "is not ready: Kubernetes has not counted" in err else err


def test_a_disk_of_one_node_is_refused_on_several(rlcar, kube, fake):
    for name in ("one", "two"):
        kube.api.create(NODES, {"metadata": {"name": name}})
    kube.add_claim("disk", "ReadWriteOnce")
    err = refused(rlcar, kube, "--runs-claim", "disk")
    assert "the volume claim disk is ReadWriteOnce, and 2 pods on 2 nodes would mount it" in err


def test_missing_crds_are_said(rlcar, kube, fake):
    fake.missing_groups.add("ray.io")
    assert "knows no rayjobs.ray.io of version v1: install KubeRay 1.7" in refused(rlcar, kube)


def status(code, reason, message, **details):
    return {
        "kind": "Status",
        "code": code,
        "reason": reason,
        "message": message,
        "details": details,
    }


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (
            status(
                403,
                "Forbidden",
                'rayjobs.ray.io "job" is forbidden: exceeded quota: team, requested: '
                "count/rayjobs.ray.io=1, used: count/rayjobs.ray.io=2, limited: "
                "count/rayjobs.ray.io=2",
            ),
            "quota team is exceeded: requested count/rayjobs.ray.io=1, used count/rayjobs.ray.io=2",
        ),
        (
            status(
                403,
                "Forbidden",
                'rayjobs.ray.io "job" is forbidden: status unknown for quota: team, resources: '
                "count/rayjobs.ray.io",
            ),
            "quota team is not ready: Kubernetes has not counted count/rayjobs.ray.io yet",
        ),
        (
            status(
                403, "Forbidden", 'violates PodSecurity "restricted:latest": runAsNonRoot != true'
            ),
            "Pod Security restricted:latest of the namespace refuses the pods: runAsNonRoot != t",
        ),
        (
            status(
                400, "BadRequest", 'admission webhook "v.example.com" denied the request: no team'
            ),
            "admission webhook v.example.com denies the request: no team; change the object",
        ),
        (
            status(
                422,
                "Invalid",
                "ValidatingAdmissionPolicy 'tags' with binding 'tags' denied request: no label",
            ),
            "admission policy tags denies the request: no label",
        ),
        (
            status(
                422,
                "Invalid",
                "is invalid",
                causes=[
                    {"field": f"spec.{name}", "message": "must be an integer"} for name in "abcdefg"
                ],
            ),
            "rayjobs job is invalid: spec.a: must be an integer; spec.b: must be an integer; spe",
        ),
        (
            status(400, "BadRequest", 'strict decoding error: unknown field "spec.new"'),
            'this cluster does not know fields of the object: unknown field "spec.new"; the CR',
        ),
        (
            status(403, "Forbidden", "because it is being terminated"),
            "is being deleted: choose another --namespace",
        ),
        (
            status(
                403,
                "Forbidden",
                'rayjobs.ray.io "job" is forbidden: create not allowed while custom resource '
                "definition is terminating",
            ),
            "wait until they are gone, and install KubeRay 1.7",
        ),
        ("<html>a proxy</html>", "refuses to create rayjobs.ray.io job in namespace"),
    ],
)
def test_an_answer_becomes_a_sentence(rlcar, kube, fake, answer, sentence):
    code = answer["code"] if isinstance(answer, dict) else 402
    fake.faults.append(Fault("POST", "/rayjobs", code, answer))
    assert sentence in refused(rlcar, kube, "--skip-checks")


def test_busy_servers_are_asked_again_and_nothing_is_created_twice(rlcar, kube, fake):
    for code in (429, 500, 503):
        fake.faults.append(Fault("POST", "/rayjobs", code, "", {"Retry-After": "0"}))
    words = ("--detach", "--name", "busy", "--skip-checks", "--", "train")
    code, out, err = rlcar("submit", *kube.options, *words)
    assert code == 0, err
    assert sum("/rayjobs?" in path for method, path in fake.requests if method == "POST") == 4


def test_a_lost_answer_to_a_creation_is_not_taken_for_a_job_of_another(rlcar, kube, fake):
    created = []

    def lose_answer(method, key, body):
        if method == "POST" and key.plural == "rayjobs" and not created:
            created.append(fake.store.create(key, body, "rlcar"))
            raise ApiError(504, "Timeout", "the request timed out")

    fake.admission.append(lose_answer)
    words = ("--detach", "--name", "lost", "--skip-checks", "--", "train")
    code, out, err = rlcar("submit", *kube.options, *words)
    assert (code, "submitted: lost" in err) == (0, True), err
    assert len(kube.api.list_all(RAY_JOBS)["items"]) == 1


def test_long_lists_are_read_page_by_page_and_again_after_410(rlcar, kube, fake, monkeypatch):
    monkeypatch.setattr("cluster.jobs.kubernetes.api._PAGE", 2)
    for number in range(5):
        pod = {"metadata": {"name": f"pod-{number}"}, "spec": {"containers": [{"name": "c"}]}}
        kube.api.create(PODS, pod)
    gone = status(410, "Expired", "The provided continue parameter is too old")
    fake.faults.append(Fault("GET", "pods.*continue", 410, gone))
    names = [pod["metadata"]["name"] for pod in kube.api.list_all(PODS)["items"]]
    assert names == [f"pod-{number}" for number in range(5)]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--image", "a b"], "--image 'a b' is not the name of an image: give registry/rep"),
        (["--queue", "A_B"], "--queue 'A_B': a name in Kubernetes consists of lower-case"),
        (["--name", "x" * 48], "KubeRay allows 47 characters, and this name has 48"),
        (
            ["--name", "1a"],
            "begins with a letter and ends with a letter or digit; for example rlc",
        ),
        (["--dry-run", "maybe"], "--dry-run 'maybe': there are client and server"),
        (["--apply"], "--apply changes an existing job: name it with --name"),
        (["--force-conflicts"], "--force-conflicts takes over fields in an apply: add --apply"),
        (["--gpus", "-1"], "--gpus -1: give a number from 0 to 64"),
        (["--reconnect-s", "nan"], "--reconnect-s nan: give a number"),
        (["--address", "head"], "--address concerns a Ray cluster: leave it out with --kubernetes"),
        (["--namespace", "a/b"], "--namespace 'a/b': a namespace has at most 63 lower-case"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_sent(rlcar, options, sentence):
    code, out, err = rlcar("submit", "--kubernetes", "--dry-run", "client", *options, "--", "train")
    assert code == 2
    assert sentence in err


def test_options_of_kubernetes_need_it(rlcar):
    code, out, err = rlcar("submit", "--image", "x", "--", "train")
    assert (code, err) == (2, "error: --image concerns Kubernetes: add --kubernetes\n")
    code, out, err = rlcar("jobs", "scale", "x", "--workers", "1")
    assert code == 2
    assert "add --kubernetes" in err
