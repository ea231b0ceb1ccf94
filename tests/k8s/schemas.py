"""Validates objects: Kubernetes' own kinds, KubeRay's, and those of other operators."""

import functools
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate

from tests.k8s.cron import cron_problem

Object = dict[str, Any]

KUBERNETES = "1.36"
_FOLDER = Path(__file__).with_name("schemas")
_METADATA = {"type": "object", "required": ["name"]}


def problems(document: Object) -> list[str]:
    """Returns what is wrong in an object; an unknown kind is wrong as well."""
    group, _, version = document["apiVersion"].rpartition("/")
    if group == "ray.io":
        schema = ray_schemas()[document["kind"]] if version == "v1" else False
    elif (own := _OTHERS.get((document["apiVersion"], document["kind"]))) is not None:
        schema = own
    else:
        return _of_kubernetes(document)
    validator = jsonschema.Draft202012Validator(schema)
    return [
        f"{error.json_path}: {error.message[:300]}" for error in validator.iter_errors(document)
    ]


def _of_kubernetes(document: Object) -> list[str]:
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        return [f"there is no schema for {document['kind']} of {document['apiVersion']}"]
    except kubernetes_validate.ValidationError as error:
        return [f"{'.'.join(map(str, error.path))}: {error.message[:300]}"]
    return []


@functools.cache
def ray_schemas() -> dict[str, Object]:
    """Returns the schemas of KubeRay's kinds, which refuse unknown fields."""
    found = {}
    for path in sorted(_FOLDER.glob("*.json.gz")):
        crd = json.loads(gzip.decompress(path.read_bytes()))
        schema = crd["openAPIV3Schema"]
        schema["properties"]["metadata"] = _METADATA
        found[crd["kind"]] = _closed(schema)
    return found


def _closed(schema: Any) -> Any:
    """Turns a structural schema of a CRD into a JSON schema that refuses unknown fields."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(value) for name, value in schema.items()}
    is_open = schema.get("x-kubernetes-preserve-unknown-fields")
    if (
        isinstance(schema.get("properties"), dict)
        and schema.get("type") == "object"
        and not is_open
    ):
        closed.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string") is True:
        closed.pop("anyOf", None)
        closed["type"] = ["integer", "string"]
    return closed


def _object(required: str = "", **properties: Any) -> Object:
    """Describes an object that has these fields alone; those in `required` must be set."""
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


def _whole(spec: Object, *, required: str = "spec") -> Object:
    """Describes an object with a spec."""
    fields = {"apiVersion": {}, "kind": {}, "metadata": _METADATA}
    return _object(f"metadata {required}", **fields, spec=spec)


def _list(item: Object) -> Object:
    return {"type": "array", "items": item, "minItems": 1}


_TEXT: Object = {"type": "string", "minLength": 1}
_NUMBER: Object = {"type": "integer"}
_QUANTITY: Object = {
    "type": ["string", "integer"],
    "pattern": r"^\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$",
}
_LABELS: Object = {"type": "object", "additionalProperties": {"type": "string"}}
_SELECTOR = _object("", matchLabels=_LABELS, matchExpressions=_list({"type": "object"}))
_DURATION: Object = {"type": "string", "pattern": r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"}


def _choice(*values: str) -> Object:
    return {"enum": list(values)}


# Hand-written from the public API documentation of each project, and only as far as k8s/ uses it.
_KUEUE = "kueue.x-k8s.io/v1beta2"
_KUEUE_RESOURCE = _object(
    "name nominalQuota",
    name=_TEXT, nominalQuota=_QUANTITY, borrowingLimit=_QUANTITY, lendingLimit=_QUANTITY,
)  # fmt: skip
_RESOURCE_GROUP = _object(
    "coveredResources flavors",
    coveredResources=_list(_TEXT),
    flavors=_list(_object("name resources", name=_TEXT, resources=_list(_KUEUE_RESOURCE))),
)
_CLUSTER_QUEUE = _object(
    "resourceGroups",
    cohortName=_TEXT,
    namespaceSelector=_SELECTOR,
    queueingStrategy=_choice("StrictFIFO", "BestEffortFIFO"),
    resourceGroups=_list(_RESOURCE_GROUP),
    preemption=_object(
        "",
        reclaimWithinCohort=_choice("Never", "LowerPriority", "Any"),
        withinClusterQueue=_choice("Never", "LowerPriority", "LowerOrNewerEqualPriority"),
        borrowWithinCohort={"type": "object"},
    ),
    fairSharing=_object("", weight=_QUANTITY),
    flavorFungibility={"type": "object"},
    stopPolicy=_choice("None", "Hold", "HoldAndDrain"),
)
_FLAVOR = _object(
    "", nodeLabels=_LABELS, nodeTaints=_list({"type": "object"}), topologyName=_TEXT,
    tolerations=_list(_object("", key=_TEXT, operator=_TEXT, value=_TEXT, effect=_TEXT)),
)  # fmt: skip
_GATEWAY = "gateway.networking.k8s.io/v1"
_LISTENER = _object(
    "name port protocol",
    name=_TEXT,
    port=_NUMBER,
    protocol=_choice("HTTP", "HTTPS", "TLS", "TCP"),
    hostname=_TEXT,
    allowedRoutes=_object("", namespaces=_object("", **{"from": _choice("Same", "All")})),
    tls=_object(
        "",
        mode=_choice("Terminate", "Passthrough"),
        certificateRefs=_list(_object("name", name=_TEXT)),
    ),
)
_REDIRECT = _object("", scheme=_choice("http", "https"), statusCode={"enum": [301, 302]})
_HTTP_RULE = _object(
    "",
    matches=_list(
        _object(
            "",
            path=_object("", type=_choice("Exact", "PathPrefix", "RegularExpression"), value=_TEXT),
        )
    ),
    backendRefs=_list(_object("name port", name=_TEXT, port=_NUMBER)),
    timeouts=_object("", request=_DURATION, backendRequest=_DURATION),
    filters=_list(_object("type", type=_TEXT, requestRedirect=_REDIRECT)),
)
_MONITORING = "monitoring.coreos.com/v1"
_ENDPOINT: Object = {
    "type": "object",
    "properties": {
        "port": _TEXT,
        "path": {"type": "string", "pattern": "^/"},
        "interval": {"type": "string", "pattern": r"^\d+(ms|s|m)$"},
        "scrapeTimeout": {"type": "string", "pattern": r"^\d+(ms|s|m)$"},
        "scheme": {"enum": ["http", "https"]},
    },
}
_MONITOR_COMMON: Object = {
    "selector": _SELECTOR,
    "namespaceSelector": _object("", matchNames=_list(_TEXT), any={"type": "boolean"}),
    "jobLabel": _TEXT,
    "podTargetLabels": _list(_TEXT),
    "targetLabels": _list(_TEXT),
}
_RULE = _object(
    "expr", alert=_TEXT, record=_TEXT, expr={"type": ["string", "integer"]}, labels=_LABELS,
    annotations=_LABELS, keep_firing_for=_DURATION, **{"for": _DURATION},
)  # fmt: skip
_OTHERS: dict[tuple[str, str], Object] = {
    (_KUEUE, "ClusterQueue"): _whole(_CLUSTER_QUEUE),
    (_KUEUE, "LocalQueue"): _whole(_object("clusterQueue", clusterQueue=_TEXT)),
    (_KUEUE, "ResourceFlavor"): _whole(_FLAVOR, required=""),
    (_KUEUE, "WorkloadPriorityClass"): _object(
        "metadata value",
        apiVersion={},
        kind={},
        metadata=_METADATA,
        value=_NUMBER,
        description=_TEXT,
    ),
    (_GATEWAY, "Gateway"): _whole(
        _object("gatewayClassName listeners", gatewayClassName=_TEXT, listeners=_list(_LISTENER))
    ),
    (_GATEWAY, "HTTPRoute"): _whole(
        _object(
            "parentRefs rules",
            parentRefs=_list(_object("name", name=_TEXT, sectionName=_TEXT)),
            hostnames=_list(_TEXT),
            rules=_list(_HTTP_RULE),
        )
    ),
    (_MONITORING, "PodMonitor"): _whole(
        _object(
            "selector podMetricsEndpoints", **_MONITOR_COMMON, podMetricsEndpoints=_list(_ENDPOINT)
        )
    ),
    (_MONITORING, "ServiceMonitor"): _whole(
        _object("selector endpoints", **_MONITOR_COMMON, endpoints=_list(_ENDPOINT))
    ),
    (_MONITORING, "PrometheusRule"): _whole(
        _object(
            "groups",
            groups=_list(_object("name rules", name=_TEXT, interval=_DURATION, rules=_list(_RULE))),
        )
    ),
}


def job_problems(document: Object) -> Iterator[str]:
    """Returns what the API server refuses in Jobs and CronJobs although the schema accepts it."""
    spec, name = document["spec"], document["metadata"]["name"]
    if document["kind"] == "CronJob":
        if len(name) > 52:
            yield "the name of a CronJob has at most 52 characters"
        if problem := cron_problem(spec["schedule"]):
            yield f"schedule: {problem}"
        spec = spec["jobTemplate"]["spec"]
    if spec["template"]["spec"].get("restartPolicy") not in ("Never", "OnFailure"):
        yield "restartPolicy must be Never or OnFailure"
    if "podFailurePolicy" in spec and spec["template"]["spec"]["restartPolicy"] != "Never":
        yield "podFailurePolicy needs restartPolicy Never"
    is_indexed = spec.get("completionMode") == "Indexed"
    if not is_indexed and {"backoffLimitPerIndex", "maxFailedIndexes"} & spec.keys():
        yield "limits of an index without completionMode Indexed"
    if is_indexed and "completions" not in spec:
        yield "completionMode Indexed needs completions"
