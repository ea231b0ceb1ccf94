"""The RayJob of a command, built from k8s/base/rayjob-train.yaml."""

import json
import re
import secrets
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from rlcar.errors import ConfigError, UserError
from rlcar.settings.files import parse_yaml

Json = dict[str, Any]
DATA = "/var/lib/rlcar"  # where the volumes of the base are mounted
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
COMMAND_ANNOTATION = "rlcar/command"
SUBMISSION_ANNOTATION = "rlcar/submission"
GPU = "nvidia.com/gpu"
SIMULATORS, LEARNER = "sim", "learner"  # values of the label `role` of a worker group
_BASE = "rayjob-train.yaml"
_IMAGE = re.compile(r"[a-z0-9]([\w.\-/:]*[\w])?(@sha256:[0-9a-f]{64})?", re.IGNORECASE)
# command -> the option for its output folder, and that folder by default
_OUTPUT_OPTIONS = {
    "train": ("--runs", f"{DATA}/runs"),
    "chaos": ("--runs", f"{DATA}/runs"),
    "tune": ("--sweeps", f"{DATA}/runs/sweeps"),
}


class JobOptions(NamedTuple):
    """What a submission changes in the base; None keeps what the base says."""

    name: str
    namespace: str
    arguments: tuple[str, ...]  # of rlcar, from its verb on
    image: str | None = None
    gpus: int | None = None
    workers: int | None = None
    queue: str | None = None
    runs_claim: str | None = None
    models_claim: str | None = None
    priority_class: str | None = None
    retries: int | None = None


def read_base(path: Path | None = None) -> Json:
    """Returns the RayJob of the base; raises UserError if its file cannot be used."""
    path = path or _base_path()
    try:
        base = parse_yaml(path.read_text())
    except (OSError, ConfigError) as error:
        raise UserError(f"cannot use the RayJob in {path}: {error}") from error
    if not isinstance(base, dict) or base.get("kind") != "RayJob":
        raise UserError(f"{path} does not contain a RayJob")
    copied: Json = json.loads(json.dumps(base, default=str))  # YAML aliases become copies
    return copied


def _base_path() -> Path:
    here = Path(__file__).with_name(_BASE)  # in an installed package
    return here if here.is_file() else Path(__file__).parents[3] / "k8s" / "base" / _BASE


def entrypoint_of(arguments: Sequence[str], job_name: str) -> str:
    """Returns the shell command of the job.

    Every try of a training continues the same run. It follows the number of worker pods.
    """
    verb, words = arguments[0], list(arguments)
    option, folder = _OUTPUT_OPTIONS.get(verb, ("", ""))
    if option and "--local" not in words:
        if _has(words, "--address"):
            raise UserError(
                "the submitted command has an option --address: leave it out, as a job uses the "
                "cluster that KubeRay starts for it"
            )
        words += ["--address", "auto"]
    if option and not _has(words, option):
        words += [option, folder]
    if verb == "train":
        if not _has(words, "--name") and not _has(words, "--resume"):
            words += ["--name", job_name]
        if not _has(words, "--resume"):
            words += ["--resume", "auto"]
        if not _has(words, "--simulators") and "--local" not in words:
            words += ["--simulators", "auto"]
        if "--publish" in words and not _has(words, "--registry"):
            words += ["--registry", f"{DATA}/models"]
    return shlex.join(["rlcar", *words])


def build(base: Json, options: JobOptions) -> Json:
    """Returns the RayJob to create; raises UserError for options that the base cannot take."""
    job: Json = json.loads(json.dumps(base))
    metadata, spec = job["metadata"], job["spec"]
    metadata["name"], metadata["namespace"] = options.name, options.namespace
    annotations = metadata.setdefault("annotations", {})
    annotations[COMMAND_ANNOTATION] = shlex.join(options.arguments)
    annotations[SUBMISSION_ANNOTATION] = secrets.token_hex(8)
    spec["entrypoint"] = entrypoint_of(options.arguments, options.name)
    if options.retries is not None:
        spec["backoffLimit"] = options.retries
    if options.queue is not None:
        # Kueue resumes the job when its queue has room.
        metadata.setdefault("labels", {})[QUEUE_LABEL] = options.queue
        spec["suspend"] = True
    if options.image is not None:
        _set_image(spec, options.image)
    if options.workers is not None:
        _set_replicas(find_group(spec["rayClusterSpec"], SIMULATORS), options.workers)
    if options.gpus is not None:
        _set_gpus(find_group(spec["rayClusterSpec"], LEARNER), options.gpus)
    for volume, claim in (("runs", options.runs_claim), ("models", options.models_claim)):
        if claim is not None:
            _set_claim(spec, volume, claim)
    if options.priority_class is not None:
        for pod in _pods(spec):
            pod["priorityClassName"] = options.priority_class
    return job


def find_group(cluster: Json, role: str) -> Json:
    """Returns the worker group with a role; raises UserError if there is none."""
    groups = cluster.get("workerGroupSpecs") or []
    for group in groups:
        labelled = (group.get("labels") or {}).get("role")
        if role in (labelled, group.get("groupName")):
            return dict_of(group)
    names = ", ".join(str(group.get("groupName")) for group in groups) or "none"
    raise UserError(
        f"the Ray cluster has no worker group with the role {role}; its groups: {names}"
    )


def dict_of(value: Any) -> Json:
    """Returns a value of JSON that must be an object."""
    if not isinstance(value, dict):
        raise UserError(f"expected an object, not {value!r}")
    return value


def claims_of(job: Json) -> dict[str, int]:
    """Returns the persistent volume claims that a job mounts, with the number of pods of each."""
    cluster = job["spec"]["rayClusterSpec"]
    groups = [(1, cluster["headGroupSpec"])]
    groups += [(int(g.get("replicas") or 0), g) for g in cluster.get("workerGroupSpecs") or []]
    found: dict[str, int] = {}
    for count, group in groups:
        for volume in group["template"]["spec"].get("volumes") or []:
            claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
            if claim:
                found[claim] = found.get(claim, 0) + count
    return found


def named_by_pods(job: Json, field: str) -> list[str]:
    """Returns what the pods of a job name in a field, such as `serviceAccountName`, each once."""
    return sorted({str(pod[field]) for pod in _pods(job["spec"]) if pod.get(field)})


def gpus_of(job: Json) -> int:
    """Returns how many GPUs one pod of a job asks for at most."""
    return max((int(_gpu_limit(pod)) for pod in _pods(job["spec"])), default=0)


def as_yaml(job: Json) -> str:
    """Returns an object as YAML, in the order of its fields."""
    return yaml.safe_dump(job, sort_keys=False, width=100)


def check_image(image: str) -> None:
    """Raises UserError for a text that no image can have as its name."""
    if not _IMAGE.fullmatch(image) or "//" in image:
        raise UserError(
            f"--image {image!r} is not the name of an image: give registry/repository:tag or "
            "registry/repository@sha256:…"
        )


def _set_image(spec: Json, image: str) -> None:
    for pod in _pods(spec):
        for container in [*(pod.get("containers") or []), *(pod.get("initContainers") or [])]:
            name = str(container.get("image", "")).partition("@")[0].rpartition("/")[2]
            if name.partition(":")[0] == "rlcar":
                container["image"] = image


def _set_replicas(group: Json, count: int) -> None:
    group["replicas"] = count
    group["minReplicas"] = min(int(group.get("minReplicas") or 0), count)
    group["maxReplicas"] = max(int(group.get("maxReplicas") or count), count)


def _set_gpus(group: Json, count: int) -> None:
    pod = group["template"]["spec"]
    resources = pod["containers"][0].setdefault("resources", {})
    for kind in ("requests", "limits"):
        resources.setdefault(kind, {}).pop(GPU, None)
        if count:
            resources[kind][GPU] = count
    if count:
        toleration = {"key": GPU, "operator": "Exists", "effect": "NoSchedule"}
        tolerations = pod.setdefault("tolerations", [])
        if toleration not in tolerations:
            tolerations.append(toleration)


def _set_claim(spec: Json, volume_name: str, claim: str) -> None:
    found = False
    for pod in _pods(spec):
        for volume in pod.get("volumes") or []:
            if volume.get("name") == volume_name:
                volume["persistentVolumeClaim"] = {"claimName": claim}
                found = True
    if not found:
        raise UserError(
            f"the RayJob of the base has no volume {volume_name!r} for --{volume_name}-claim"
        )


def _pods(spec: Json) -> Iterator[Json]:
    """Yields the pod specifications of a RayJob."""
    cluster = spec["rayClusterSpec"]
    yield cluster["headGroupSpec"]["template"]["spec"]
    for group in cluster.get("workerGroupSpecs") or []:
        yield group["template"]["spec"]
    if submitter := spec.get("submitterPodTemplate"):
        yield submitter["spec"]


def _gpu_limit(pod: Json) -> int:
    limits = [(c.get("resources") or {}).get("limits") or {} for c in pod.get("containers") or []]
    return sum(int(limit.get(GPU) or 0) for limit in limits)


def _has(words: Sequence[str], option: str) -> bool:
    return any(word == option or word.startswith(f"{option}=") for word in words)
