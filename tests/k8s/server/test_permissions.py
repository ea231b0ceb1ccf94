"""Each ServiceAccount may do what its programs need, and nothing else."""

import json

import pytest

from tests.support.kubernetes.kubectl import Namespace

pytestmark = pytest.mark.kubernetes

# What the commands of `rlcar` do with --kubernetes in the job's namespace.
NEEDED = [
    *((verb, "rayjobs.ray.io") for verb in ("get", "list", "watch", "create", "patch", "delete")),
    *((verb, "rayclusters.ray.io") for verb in ("get", "list", "watch", "patch")),
    *((verb, "pods") for verb in ("get", "list", "watch")),
    ("get", "pods/log"),
    *((verb, "events") for verb in ("get", "list")),
    *((verb, "persistentvolumeclaims") for verb in ("get", "list")),
    ("list", "resourcequotas"),
]
FORBIDDEN = [
    *((verb, "secrets") for verb in ("get", "list", "watch", "create", "delete")),
    *((verb, "pods") for verb in ("create", "update", "patch", "delete")),
    *(
        ("create", f"pods/{part}")
        for part in ("exec", "attach", "portforward", "ephemeralcontainers")
    ),
    ("create", "serviceaccounts/token"),
    *((verb, "configmaps") for verb in ("create", "patch", "delete")),
    *((verb, "persistentvolumeclaims") for verb in ("create", "patch", "delete")),
    *((verb, "rayclusters.ray.io") for verb in ("create", "delete")),
    *((verb, "rayservices.ray.io") for verb in ("create", "patch", "delete")),
    *((verb, "deployments.apps") for verb in ("create", "patch", "delete")),
    *((verb, "networkpolicies.networking.k8s.io") for verb in ("create", "patch", "delete")),
    *((verb, "resourcequotas") for verb in ("create", "patch", "delete")),
    *(
        (verb, "roles.rbac.authorization.k8s.io")
        for verb in ("create", "patch", "escalate", "bind")
    ),
    *((verb, "rolebindings.rbac.authorization.k8s.io") for verb in ("create", "patch")),
    ("impersonate", "serviceaccounts"),
    ("delete", "namespaces"),
]
SILENT = ["rlcar-trainer", "rlcar-server", "rlcar-backup"]


def test_the_submitter_may_do_what_the_client_does(platform: Namespace) -> None:
    missing = [pair for pair in NEEDED if not platform.can("rlcar-submitter", *pair)]
    assert missing == []


def test_the_submitter_may_do_nothing_dangerous(platform: Namespace) -> None:
    granted = [pair for pair in FORBIDDEN if platform.can("rlcar-submitter", *pair)]
    assert granted == []


def test_the_submitter_has_no_rights_in_other_namespaces(platform: Namespace) -> None:
    verbs = [("list", "rayjobs.ray.io"), ("get", "pods/log"), ("list", "pods"), ("list", "secrets")]
    granted = [
        pair for pair in verbs if platform.can("rlcar-submitter", *pair, namespace="kube-system")
    ]
    assert granted == []


@pytest.mark.parametrize("account", SILENT)
def test_accounts_of_workloads_have_no_rights_of_their_own(
    platform: Namespace, account: str
) -> None:
    """Their rules are those of an account to which no role is bound."""
    platform.kubectl("create", "serviceaccount", f"nobody-{account}")
    assert _rules(platform, account) == _rules(platform, f"nobody-{account}")
    assert not platform.can(account, "list", "pods")


@pytest.mark.parametrize("account", ["rlcar-submitter", *SILENT])
def test_pods_get_no_token(platform: Namespace, account: str) -> None:
    found = platform.get("serviceaccount", account)
    assert found["automountServiceAccountToken"] is False


def test_every_account_of_the_base_is_checked_here(platform: Namespace) -> None:
    accounts = {found["metadata"]["name"] for found in platform.list_all("serviceaccounts")}
    ours = {name for name in accounts if name.startswith("rlcar-")}
    assert ours == {"rlcar-submitter", *SILENT}


def _rules(space: Namespace, account: str) -> list[str]:
    """Returns the rules of an account in the namespace, as the server lists them for it."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": space.name},
    }
    groups = ("authenticated", "serviceaccounts", f"serviceaccounts:{space.name}")
    status = space.review(
        "selfsubjectrulesreviews",
        review,
        f"--as=system:serviceaccount:{space.name}:{account}",
        *(f"--as-group=system:{group}" for group in groups),
    )
    rules = [*status["resourceRules"], *status["nonResourceRules"]]
    return sorted(json.dumps(rule, sort_keys=True) for rule in rules)
