"""Credentials for a Kubernetes cluster, from a kubeconfig or from inside the cluster."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cluster.jobs.kubernetes.kubeconfig import HINT, read_kubeconfig
from cluster.jobs.kubernetes.names import check_namespace
from cluster.jobs.kubernetes.refusals import Where
from rlcar.errors import UserError
from rlcar.system.user_folders import expanded, home_folder

if TYPE_CHECKING:
    from kubernetes.client import Configuration

DEFAULT_NAMESPACE = "rlcar"
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Target(NamedTuple):
    """The cluster and the namespace that a command names."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None

    def options(self) -> list[str]:
        """Returns the command-line options that name the same target."""
        given = {
            "--kubeconfig": self.kubeconfig,
            "--context": self.context,
            "--namespace": self.namespace,
        }
        words = ["--kubernetes"]
        for option, value in given.items():
            words += [] if value is None else [option, value]
        return words


class Connection:
    """A client of one API server, with the names that messages need."""

    def __init__(self, target: Target):
        if target.namespace is not None:
            check_namespace(target.namespace)
        self._target = target
        self.verifies_tls = True
        self.reload()

    def reload(self) -> None:
        """Reads the credentials again: a token file may have been renewed."""
        from kubernetes.client import ApiClient, Configuration
        from urllib3 import disable_warnings
        from urllib3.exceptions import InsecureRequestWarning

        configuration = Configuration()
        # Our own loop repeats requests, and explains why it does.
        configuration.retries = False
        configuration.keep_alive = True
        loaded = _load(configuration, self._target)
        self.client: ApiClient = ApiClient(configuration)
        self.client.user_agent = "rlcar"
        self.where, namespace = loaded
        self.namespace = self._target.namespace or namespace or DEFAULT_NAMESPACE
        self.verifies_tls = bool(configuration.verify_ssl)
        if not self.verifies_tls:
            # The kubeconfig demands it, and rlcar doctor reports it: no warning for each request.
            disable_warnings(InsecureRequestWarning)


def _load(configuration: "Configuration", target: Target) -> tuple[Where, str | None]:
    files = _files(target.kubeconfig)
    if not files:
        if target.context is None and target.kubeconfig is None and _is_inside():
            return _load_inside(configuration)
        raise UserError(_no_kubeconfig(target.kubeconfig))
    return _load_kubeconfig(configuration, files, target.context)


def _files(named: str | None) -> list[str]:
    """Returns the files that exist; several are merged, as kubectl does."""
    if named:
        words = [named]
    elif variable := os.environ.get("KUBECONFIG"):
        words = variable.split(os.pathsep)
    else:
        words = [str(path)] if (path := _default_file()) else []
    return [str(path) for word in words if word and (path := expanded(word)).is_file()]


def _default_file() -> Path | None:
    home = home_folder()
    return None if home is None else home / ".kube" / "config"


def _no_kubeconfig(named: str | None) -> str:
    if named:
        return f"--kubeconfig {named}: there is no such file"
    if variable := os.environ.get("KUBECONFIG"):
        return f"KUBECONFIG={variable} names no file that exists: correct it, or use --kubeconfig"
    path = _default_file()
    missing = f"{path} does not exist" if path else "this user has no home folder"
    return f"there is no kubeconfig: {missing}; set KUBECONFIG, or use --kubeconfig"


def _is_inside() -> bool:
    return (
        bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and (_SERVICE_ACCOUNT / "token").is_file()
    )


def _load_inside(configuration: "Configuration") -> tuple[Where, str | None]:
    from kubernetes import config

    try:
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException as error:
        raise UserError(f"cannot use the pod's service account: {error}") from error
    try:
        namespace = (_SERVICE_ACCOUNT / "namespace").read_text().strip()
    except OSError:
        namespace = ""
    return Where("", configuration.host, "(this pod)", "service account token"), namespace or None


def _load_kubeconfig(
    configuration: "Configuration", files: list[str], wanted: str | None
) -> tuple[Where, str | None]:
    from kubernetes.config import ConfigException, kube_config

    kubeconfig = read_kubeconfig(files)
    name = kubeconfig.choose(wanted)
    context = kubeconfig.contexts[name]
    user = str(context.get("user") or "(none)")
    try:
        with _captured_log() as messages:
            kube_config.load_kube_config(
                os.pathsep.join(files),
                name,
                client_configuration=configuration,
                persist_config=False,
            )
    except (ConfigException, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        # The library quotes whole entries of the file, with their secrets.
        reason = " ".join(re.sub(r"\{.*\}", "{…}", str(error), flags=re.DOTALL).split())
        raise UserError(
            f"cannot use context {name} of kubeconfig {', '.join(files)}: {reason}; {HINT}"
        ) from None
    has_credentials = bool(configuration.api_key or configuration.cert_file)
    if messages and not has_credentials:
        raise UserError(
            f"user {user} has no credentials, because the plugin of the kubeconfig fails "
            f"({messages[0]}): run it, or your provider's login command, by hand"
        )
    kind = kubeconfig.credentials_of(user)
    return Where(name, configuration.host, user, kind), context.get("namespace")


@contextmanager
def _captured_log() -> Iterator[list[str]]:
    """Collects what the library logs in place of raising: that a credential plugin has failed."""
    messages: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        messages.append(" ".join(record.getMessage().split())[:300])
        return False

    root = logging.getLogger()
    root.addFilter(keep)
    try:
        yield messages
    finally:
        root.removeFilter(keep)
