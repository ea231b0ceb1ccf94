"""Role-based access control of the fake API server, and its users."""

from typing import Any

from tests.support.kubernetes.store import Store

Json = dict[str, Any]
ADMIN = "kubernetes-admin"
_RBAC = "rbac.authorization.k8s.io"


def may(
    store: Store, user: str, verb: str, group: str, resource: str, namespace: str | None
) -> bool:
    """Says whether a user has a right, by the Roles that are bound to it."""
    if user == ADMIN:
        return True
    scopes = [("clusterrolebindings", "clusterroles", "")]
    if namespace:
        scopes.append(("rolebindings", "roles", namespace))
    for bindings, roles, where in scopes:
        for binding in store.select(_RBAC, bindings, where):
            if not any(_is_user(subject, user) for subject in binding.get("subjects") or []):
                continue
            name = binding["roleRef"]["name"]
            for role in store.select(_RBAC, roles, where):
                if role["metadata"]["name"] == name and any(
                    _allows(rule, verb, group, resource) for rule in role.get("rules") or []
                ):
                    return True
    return False


def forbidden_message(
    user: str, verb: str, group: str, resource: str, name: str, namespace: str | None
) -> str:
    """Words a refusal as the real server does."""
    full = f"{resource}.{group}" if group else resource
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    named = f' "{name}"' if name else ""
    return (
        f'{full}{named} is forbidden: User "{user}" cannot {verb} resource "{resource}" in API '
        f'group "{group}" {where}'
    )


def _is_user(subject: Json, user: str) -> bool:
    if subject.get("kind") == "ServiceAccount":
        return user == f"system:serviceaccount:{subject.get('namespace')}:{subject['name']}"
    return subject.get("kind") == "User" and subject["name"] == user


def _allows(rule: Json, verb: str, group: str, resource: str) -> bool:
    return all(
        wanted in rule.get(part, []) or "*" in rule.get(part, [])
        for part, wanted in (("verbs", verb), ("apiGroups", group), ("resources", resource))
    )
