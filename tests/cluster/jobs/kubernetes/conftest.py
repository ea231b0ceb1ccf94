"""The fixtures of tests/support/kubernetes."""

from tests.support.kubernetes.fixtures import (
    authority,
    fake,
    fake_kubeconfig,
    fake_server,
    kube,
    link,
    server_certificate,
)

__all__ = [
    "authority",
    "fake",
    "fake_kubeconfig",
    "fake_server",
    "kube",
    "link",
    "server_certificate",
]
