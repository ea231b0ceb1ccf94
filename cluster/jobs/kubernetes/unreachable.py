"""Why an API server cannot be reached, in one sentence with the remedy."""

import re
import socket
import ssl

from cluster.jobs.kubernetes.refusals import UnreachableError, Where
from rlcar.errors import UserError


def unreachable(error: Exception, where: Where) -> Exception:
    """Returns the exception for an error of the connection; any other error unchanged."""
    from kubernetes.client import ApiException
    from urllib3 import exceptions as network

    known = (network.HTTPError, OSError)
    if isinstance(error, ApiException) and isinstance(error.__context__, Exception):
        error = error.__context__  # the library's own form of an error of TLS
    if isinstance(error, UserError) or not isinstance(error, known):
        return error
    chain = _chain(error)
    for cause in chain:
        is_tls = isinstance(cause, (ssl.SSLError, network.SSLError))
        if is_tls and (failure := _tls(" ".join(map(str, chain)), where)):
            return failure
    for cause in chain:
        if isinstance(cause, network.ProxyError):
            return UnreachableError(
                f"the proxy on the way to {where} fails ({_brief(cause)}): check HTTPS_PROXY, "
                "NO_PROXY and proxy-url in the kubeconfig"
            )
        if isinstance(cause, (network.NameResolutionError, socket.gaierror)):
            return UnreachableError(
                f"the host name of {where} is unknown: check the server's address in the "
                "kubeconfig, DNS and the VPN"
            )
        if isinstance(cause, ConnectionRefusedError):
            return UnreachableError(
                f"nothing listens at {where}: check that the cluster runs, and that the "
                "kubeconfig names its present address"
            )
    for cause in chain:
        if isinstance(cause, (network.TimeoutError, TimeoutError)):
            return UnreachableError(
                f"{where} does not answer in time: check the VPN and the firewall"
            )
    return UnreachableError(f"{where} closed the connection ({_brief(error)})")


def _tls(text: str, where: Where) -> UnreachableError | None:
    """Explains an error of TLS; None for a connection that was merely lost."""
    if (
        "CERTIFICATE_VERIFY_FAILED" in text
        and "ostname mismatch" in text
        or "IP address mismatch" in text
    ):
        reason = (
            "its certificate is made out to another host: use the address that it names, or set "
            "tls-server-name in the kubeconfig"
        )
    elif "has expired" in text:
        reason = "its certificate has expired: renew it on the cluster, and check this clock"
    elif "CERTIFICATE_VERIFY_FAILED" in text:
        reason = (
            "its certificate is not signed by the authority in the kubeconfig: correct "
            "certificate-authority-data, for example with your provider's login command"
        )
    elif "WRONG_VERSION_NUMBER" in text or "record layer failure" in text.lower():
        reason = "the server there does not speak TLS: check scheme and port of its address"
    elif "alert" in text.lower():
        reason = "it refuses the client certificate: renew it, or choose another --context"
    else:
        return None
    failure = UnreachableError(f"no secure connection to {where}: {reason}")
    failure.is_permanent = True
    return failure


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in found:
        found.append(cause)
        inner = next((word for word in cause.args if isinstance(word, BaseException)), None)
        cause = (
            getattr(cause, "original_error", None) or inner or cause.__cause__ or cause.__context__
        )
    return found


def _brief(error: BaseException) -> str:
    text = re.sub(r" ?\(_ssl\.c:\d+\)", "", str(error.args[-1] if error.args else error))
    return " ".join(text.split())[:200] or type(error).__name__
