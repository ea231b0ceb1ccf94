"""Refusals of the Kubernetes API, each as one sentence with its remedy."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from cluster.jobs.kubernetes.paths import Resource
from rlcar.errors import UserError

FIELD_MANAGER = "rlcar"  # the name under which we own fields of objects
_MOST_FIELDS = 5
_QUOTA = re.compile(
    r"exceeded quota: (?P<quota>\S+), requested: (?P<requested>.+?), used: (?P<used>.+?), "
    r"limited: (?P<limited>[^;\n]+)"
)
_UNCOUNTED = re.compile(
    r"status unknown for quota: (?P<quota>[^,]+), resources: (?P<resources>\S+)"
)
_POD_SECURITY = re.compile(r'violates PodSecurity "(?P<level>[^"]+)": (?P<rules>.+)', re.DOTALL)
_WEBHOOK = re.compile(
    r'admission webhook "(?P<webhook>[^"]+)" denied the request(?: without explanation)?(?:: )?'
    r"(?P<message>.*)",
    re.DOTALL,
)
_POLICY = re.compile(
    r"ValidatingAdmissionPolicy '(?P<policy>[^']+)'.*? denied request: (?P<message>.*)", re.DOTALL
)
_PRIORITY_CLASS = re.compile(r"no PriorityClass with name (?P<name>\S+) was found")
_SERVICE_ACCOUNT = re.compile(r'serviceaccount "(?P<name>[^"]+)" not found')
_FORBIDDEN = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]+)" in API group '
    r'"(?P<group>[^"]*)"(?: in the namespace "(?P<namespace>[^"]+)")?'
)
_NO_NAMESPACE = re.compile(r'namespaces "(?P<namespace>[^"]+)" not found')
_MANAGER = re.compile(r'conflict with "(?P<manager>[^"]+)"(?P<more>[^\n]*)')
_UNKNOWN_FIELD = re.compile(r"strict decoding error: (?P<fields>.*)", re.DOTALL)
_KUBERAY = "install KubeRay 1.7 (k8s/README.md), or choose another --context"


class Request(NamedTuple):
    """What was asked of the API."""

    verb: str  # create, get, …
    resource: Resource | None
    namespace: str | None = None
    name: str = ""


class Where(NamedTuple):
    """The cluster and the user of a request, for messages."""

    context: str  # empty inside a cluster
    server: str
    user: str
    credentials: str  # token, exec plugin NAME, client certificate, …

    def __str__(self) -> str:
        return f"{self.server} (context {self.context})" if self.context else self.server


class Status(NamedTuple):
    """The API's description of a refusal."""

    code: int
    reason: str = ""
    message: str = ""
    details: Mapping[str, Any] = {}
    retry_after_s: float | None = None


class RefusedError(UserError):
    """The API answered a request with an error."""

    def __init__(self, status: Status, sentence: str):
        super().__init__(sentence)
        self.status = status

    @property
    def code(self) -> int:
        """The HTTP status of the answer."""
        return self.status.code

    @property
    def reason(self) -> str:
        """The API's one-word reason, such as AlreadyExists."""
        return self.status.reason


class UnreachableError(UserError):
    """The API server does not answer."""

    is_permanent = False  # another attempt cannot help


def refusal(status: Status, request: Request, where: Where) -> RefusedError:
    """Returns the exception for an answer with an error."""
    return RefusedError(status, explain(status, request, where))


def explain(status: Status, request: Request, where: Where) -> str:
    """Returns one sentence: what was refused, why, and what to do."""
    admission = explain_admission(status.message)
    if admission:
        return admission
    explanations = {
        400: _bad_request,
        401: _unauthorized,
        403: _forbidden,
        404: _not_found,
        405: _not_found,
        409: _conflict,
        422: _invalid,
        429: _overloaded,
    }
    if status.code in explanations:
        return explanations[status.code](status, request, where)
    if status.code >= 500:
        return _overloaded(status, request, where)
    return f"{where} refuses to {_action(request)}: {_brief(status)}"


def owners_of(status: Status) -> dict[str, list[str]]:
    """Returns the managers whose fields a server-side apply would change, with these fields."""
    owners: dict[str, list[str]] = {}
    for cause in status.details.get("causes") or []:
        if cause.get("reason") == "FieldManagerConflict":
            match = _MANAGER.search(cause.get("message", ""))
            owner = match["manager"] if match else str(cause.get("message", "another manager"))
            owners.setdefault(owner, []).append(str(cause.get("field", "?")))
    return owners


def explain_admission(message: str) -> str:
    """Explains a message of admission control, also from an event; empty for any other message."""
    if match := _QUOTA.search(message):
        return (
            f"quota {match['quota']} is exceeded: requested {match['requested']}, used "
            f"{match['used']}, limited to {match['limited'].strip()}; end another job "
            "(rlcar jobs list --kubernetes), ask for less (--workers, --gpus), or have the quota "
            "raised"
        )
    if match := _UNCOUNTED.search(message):
        return (
            f"quota {match['quota']} is not ready: Kubernetes has not counted {match['resources']} "
            "yet, which takes up to a minute after the quota or KubeRay was installed; try again"
        )
    if match := _PRIORITY_CLASS.search(message):
        return (
            f"the cluster has no PriorityClass {match['name']}: apply k8s/base/platform, or name "
            "another one with --priority-class"
        )
    if match := _SERVICE_ACCOUNT.search(message):
        return (
            f"the namespace has no ServiceAccount {match['name']}: apply k8s/base/platform to it, "
            "or choose another --namespace"
        )
    if match := _POD_SECURITY.search(message):
        rules = " ".join(match["rules"].split())
        return (
            f"Pod Security {match['level']} of the namespace refuses the pods: {_cut(rules)}; "
            "correct their securityContext as in k8s/base, or choose another --namespace"
        )
    if match := _WEBHOOK.search(message):
        why = " ".join(match["message"].split()) or "it gives no reason"
        return (
            f"admission webhook {match['webhook']} denies the request: {_cut(why)}; change the "
            "object accordingly (--dry-run client prints it), or ask the cluster's administrators"
        )
    if match := _POLICY.search(message):
        why = " ".join(match["message"].split())
        return (
            f"admission policy {match['policy']} denies the request: {_cut(why)}; change the "
            "object accordingly (--dry-run client prints it)"
        )
    return ""


def _bad_request(status: Status, request: Request, where: Where) -> str:
    if match := _UNKNOWN_FIELD.search(status.message):
        return (
            f"this cluster does not know fields of the object: {_cut(match['fields'])}; the "
            "CRDs are of another KubeRay version: update them (kubectl apply --server-side)"
        )
    return f"{where} refuses to {_action(request)} as malformed: {_brief(status)}"


def _unauthorized(status: Status, request: Request, where: Where) -> str:
    del status, request
    return (
        f"{where} does not accept your credentials: the {where.credentials} of user {where.user} "
        "is expired or wrong; log in again with your provider's command, or choose another "
        "--context"
    )


def _forbidden(status: Status, request: Request, where: Where) -> str:
    if "because it is being terminated" in status.message:
        return f"namespace {request.namespace} is being deleted: choose another --namespace"
    if "custom resource definition is terminating" in status.message:
        return (
            f"KubeRay's CRDs are being deleted on {where}: wait until they are gone, and {_KUBERAY}"
        )
    match = _FORBIDDEN.search(status.message)
    if match is None:
        return f"{where} forbids to {_action(request)}: {_brief(status)}"
    resource = f"{match['resource']}.{match['group']}" if match["group"] else match["resource"]
    scope = f"in namespace {match['namespace']}" if match["namespace"] else "in the whole cluster"
    return (
        f"user {match['user']} may not {match['verb']} {resource} {scope}: have the role "
        f"rlcar-submitter of k8s/base, or another role with the verb {match['verb']} on "
        f"{resource}, bound to that user"
    )


def _not_found(status: Status, request: Request, where: Where) -> str:
    if match := _NO_NAMESPACE.search(status.message):
        namespace = match["namespace"]
        return (
            f"there is no namespace {namespace} on {where}: create it with kubectl create "
            f"namespace {namespace}, or name another one with --namespace"
        )
    resource = request.resource
    if resource is None or status.details.get("name"):
        kind = resource.full_name if resource else "object"
        scope = f" in namespace {request.namespace}" if request.namespace else ""
        name = request.name or status.details.get("name", "")
        return f"there is no {kind} {name}{scope} on {where}"
    if resource.group == "ray.io":
        return f"{where} knows no {resource.full_name} of version {resource.version}: {_KUBERAY}"
    return f"{where} knows no {resource.full_name} of version {resource.version}"


def _conflict(status: Status, request: Request, where: Where) -> str:
    what = f"{request.resource.plural if request.resource else ''} {request.name}".strip()
    if status.reason == "AlreadyExists":
        return (
            f"{what} exists already in namespace {request.namespace}: choose another --name, "
            "or change the existing one with --apply"
        )
    if owners := owners_of(status):
        if len(owners) > 1:
            owners.pop(FIELD_MANAGER, None)  # fields that an earlier command of ours has set
        listed = "; ".join(f"{', '.join(owners[owner])} by {owner}" for owner in owners)
        return (
            f"{what} has fields that another manager owns: {listed}; leave them as they are, or "
            "take them over with --force-conflicts"
        )
    return f"{what} was changed by someone else in the meantime: try again ({_brief(status)})"


def _invalid(status: Status, request: Request, where: Where) -> str:
    del where
    causes = status.details.get("causes") or []
    fields = [
        f"{cause.get('field') or '?'}: {_cut(' '.join(cause.get('message', '').split()))}"
        for cause in causes
    ]
    shown = "; ".join(fields[:_MOST_FIELDS])
    if len(fields) > _MOST_FIELDS:
        shown += f"; and {len(fields) - _MOST_FIELDS} more"
    what = f"{request.resource.plural if request.resource else 'object'} {request.name}".strip()
    return f"{what} is invalid: {shown or _brief(status)}"


def _overloaded(status: Status, request: Request, where: Where) -> str:
    what = "is overloaded" if status.code == 429 else "has an internal error"
    return (
        f"{where} {what} and still refuses to {_action(request)} after several attempts "
        f"({status.code}: {_brief(status)}); try again later"
    )


def _action(request: Request) -> str:
    resource = request.resource.full_name if request.resource else "the request"
    scope = f" in namespace {request.namespace}" if request.namespace else ""
    return f"{request.verb} {resource}{f' {request.name}' if request.name else ''}{scope}"


def _brief(status: Status) -> str:
    text = " ".join(status.message.split()) or status.reason
    return _cut(text) if text else f"status {status.code}"


def _cut(text: str, most: int = 300) -> str:
    return text if len(text) <= most else f"{text[:most]}…"
