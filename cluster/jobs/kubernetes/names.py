"""Names of jobs: what Kubernetes and KubeRay accept, checked before anything is sent."""

import re
import secrets
import time

from rlcar.errors import UserError

# KubeRay adds a hyphen and five characters for the cluster, whose services may have 63 characters.
LONGEST_JOB_NAME = 47
_LONGEST_NAMESPACE = 63
_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_DNS_1123_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LONGEST_SUBDOMAIN = 253


def new_name(verb: str) -> str:
    """Returns a name that no other job has, from the verb and the time."""
    return f"rlcar-{verb}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def check_job_name(name: str) -> None:
    """Raises UserError for a name that Kubernetes or KubeRay would refuse."""
    if len(name) > LONGEST_JOB_NAME:
        raise UserError(
            f"--name {name}: KubeRay allows {LONGEST_JOB_NAME} characters, and this name has "
            f"{len(name)}"
        )
    if not _DNS_1035.fullmatch(name):
        raise UserError(
            f"--name {name!r}: a job's name consists of lower-case letters, digits and hyphens, "
            f"begins with a letter and ends with a letter or digit{_suggestion(name)}"
        )


def check_namespace(name: str) -> None:
    """Raises UserError for a name that no namespace can have."""
    if len(name) > _LONGEST_NAMESPACE or not _DNS_1123_LABEL.fullmatch(name):
        raise UserError(
            f"--namespace {name!r}: a namespace has at most {_LONGEST_NAMESPACE} lower-case "
            "letters, digits and hyphens, and begins and ends with a letter or digit"
        )


def check_object_name(option: str, name: str) -> None:
    """Raises UserError for a name that no claim, queue or priority class can have."""
    if len(name) > _LONGEST_SUBDOMAIN or not _SUBDOMAIN.fullmatch(name):
        raise UserError(
            f"{option} {name!r}: a name in Kubernetes consists of lower-case letters, digits, "
            "hyphens and dots"
        )


def _suggestion(name: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    proposal = words if words[:1].isalpha() else f"rlcar-{words}".strip("-")
    fits = _DNS_1035.fullmatch(proposal) and len(proposal) <= LONGEST_JOB_NAME
    return f"; for example {proposal}" if fits else ""
