"""A host below a temporary folder, made by the install script, with its web server."""

import contextlib
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx

from benchmarks.processes import free_port
from rlcar.registry import Registry
from serve.guard.tokens import TokenStore
from tests.support.untrained_run import untrained
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
INSTALL = ROOT / "deploy" / "host" / "install"
VENV = Path(sys.executable).parents[1]
# Given to the script, because the shims of pyenv take it a second for each version that it tries.
PYTHON = Path(sys.base_exec_prefix) / "bin/python3"
NGINX = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")


def install(
    root: Path, *options: object, python: Path | None = PYTHON
) -> subprocess.CompletedProcess[str]:
    """Runs the install script below `root` with the environment of the tests, and a free port.

    Without `python` the script looks for one in the path.
    """
    command = [INSTALL, "--root", root, "--venv", VENV, "--serve-port", free_port()]
    command += [*([] if python is None else ["--python", python]), *options]
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, timeout=120
    )


class Host(NamedTuple):
    """An installed host; nothing runs yet."""

    root: Path
    serve_port: int
    https_port: int
    token: str
    admin_token: str

    @property
    def data(self) -> Path:
        return self.root / "var/lib/rlcar"

    @property
    def url(self) -> str:
        return f"https://localhost:{self.https_port}"

    @property
    def certificate(self) -> Path:
        return self.root / "etc/rlcar/tls/certificate.pem"

    def tls(self) -> ssl.SSLContext:
        """Trusts this host's certificate alone."""
        return ssl.create_default_context(cafile=self.certificate)

    def set_options(self, file: str, name: str, value: str) -> None:
        """Changes one line of a file of /etc/rlcar, as an administrator does."""
        path = self.root / "etc/rlcar" / file
        lines = [line for line in path.read_text().splitlines() if not line.startswith(f"{name}=")]
        path.write_text("\n".join([*lines, f'{name}="{value}"']) + "\n")


def install_host(root: Path, *options: object) -> Host:
    """Installs a host with supervisor and nginx, and gives it a policy and tokens."""
    serve_port, http_port, https_port = free_port(), free_port(), free_port()
    done = install(
        root,
        *("--init", "supervisor", "--server-name", "localhost", "--self-signed"),
        *("--serve-port", serve_port, "--http-port", http_port, "--https-port", https_port),
        *options,
    )
    assert done.returncode == 0, done.stderr
    registry = Registry(root / "var/lib/rlcar/models")
    registry.promote(registry.publish(untrained()).number)
    store = TokenStore(root / "var/lib/rlcar/tokens.json")
    token = store.create("car", ["read", "act"], None)
    return Host(root, serve_port, https_port, token, store.create("admin", ["admin"], None))


def write_nginx_conf(host: Host) -> Path:
    """Writes what surrounds the installed site, as Debian's own nginx.conf does."""
    run = host.root / "run"
    run.mkdir(exist_ok=True)
    path = host.root / "nginx.conf"
    path.write_text(
        f"pid {run}/nginx.pid;\nerror_log {run}/error.log;\nworker_processes 2;\n"
        "events { worker_connections 512; }\n"
        f"http {{\n  access_log {run}/access.log;\n"
        f"  client_body_temp_path {run}/body;\n  proxy_temp_path {run}/proxy;\n"
        f"  fastcgi_temp_path {run}/fastcgi;\n  uwsgi_temp_path {run}/uwsgi;\n"
        f"  scgi_temp_path {run}/scgi;\n"
        f"  include {host.root}/etc/nginx/conf.d/*.conf;\n}}\n"
    )
    return path


def nginx_command(host: Host) -> list[str]:
    """Returns the command line of nginx in the foreground."""
    assert NGINX is not None
    return [NGINX, "-e", "stderr", "-c", str(write_nginx_conf(host)), "-g", "daemon off;"]


@contextlib.contextmanager
def running(*commands: list[str]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Runs programs, and ends them."""
    with contextlib.ExitStack() as stack:
        processes = []
        for command in commands:
            process = subprocess.Popen(command)
            stack.callback(process.wait, 60)
            stack.callback(process.terminate)
            processes.append(process)
        yield processes


def is_ready(host: Host) -> bool:
    """Whether the policy server answers through nginx."""
    try:
        answer = httpx.get(f"{host.url}/health/ready", verify=host.tls(), timeout=5)
    except httpx.HTTPError:
        return False
    return answer.status_code == 200


def wait_until_ready(host: Host, timeout_s: float = 240.0) -> None:
    """Waits for the policy server behind nginx."""
    wait_until(lambda: is_ready(host), timeout_s)


def children(pid: int) -> list[int]:
    """Returns the child processes of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
