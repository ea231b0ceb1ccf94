"""Checks whether a training can run on this machine, and says how to fix what prevents it."""

import importlib.metadata
import os
import platform
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from packaging.requirements import Requirement

import rlcar
from cluster.jobs.auth_token import find_token, token_path
from rlcar.errors import UserError, reason_of

_GB = 1e9
# Below these values a warning or a problem is reported.
_FEWEST_CORES = 2
_LEAST_MEMORY_GB = 3.7  # a machine sold with 4 GB shows a little less
_LITTLE_DISK_GB, _LEAST_DISK_GB = 10, 1
_LEAST_SHARED_MEMORY_GB = 0.2
_SHARED_MEMORY_SHARE = 0.3  # of the memory, which Ray takes for its object store
_PORTS = {"control service (GCS)": 6379, "dashboard": 8265, "Serve": 8000}


class Finding(NamedTuple):
    """The result of one check."""

    check: str
    state: Literal["ok", "warning", "problem"]
    found: str
    fix: str = ""


def examine(runs: Path, environment: Mapping[str, str] | None = None) -> list[Finding]:
    """Checks this machine only; takes some seconds, as JAX searches for GPUs."""
    environment = os.environ if environment is None else environment
    checks: list[Callable[[], Iterator[Finding]]] = [
        _python,
        _packages,
        _machine,
        lambda: _token(environment),
        lambda: _addresses(environment),
        _ports,
        lambda: _storage(runs),
        _shared_memory,
        lambda: _gpus(environment),
    ]
    return [finding for check in checks for finding in check()]


def machine() -> dict[str, str | None]:
    """Returns the host name and the versions, for comparison with another machine."""
    versions = {name: _version(name) for name in ("ray", "jax", "numpy")}
    ours = {"python": platform.python_version(), "rlcar": rlcar.__version__}
    return {"host": socket.gethostname(), **ours, **versions}


def has_problem(findings: list[Finding]) -> bool:
    """Says whether a finding prevents a training."""
    return any(finding.state == "problem" for finding in findings)


def _python() -> Iterator[Finding]:
    found = f"{platform.python_version()} ({sys.executable})"
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        yield Finding("Python", "ok", found)
    else:
        yield Finding("Python", "problem", found, "use Python 3.11, 3.12 or 3.13")


def _packages() -> Iterator[Finding]:
    """Compares the installed packages with the requirements of this version."""
    missing, wrong = [], []
    try:
        requirements = importlib.metadata.requires("rlcar") or []
    except importlib.metadata.PackageNotFoundError:
        # A job brings the program along without installing it, but not the packages that it needs.
        requirements = list(_IMPORTED)
    for text in requirements:
        needed = Requirement(text)
        if needed.marker and not any(
            needed.marker.evaluate({"extra": extra}) for extra in ("", "cluster")
        ):
            continue
        installed = _version(needed.name)
        if installed is None:
            missing.append(needed.name)
        elif not needed.specifier.contains(installed, prereleases=True):
            wrong.append(f"{needed.name} {installed}, not {needed.specifier}")
    versions = {"rlcar": rlcar.__version__, "jax": _version("jax"), "ray": _version("ray")}
    found = ", ".join(f"{name} {version or 'missing'}" for name, version in versions.items())
    if missing or wrong:
        listed = "; ".join([f"missing: {', '.join(missing)}"] * bool(missing) + wrong)
        without_ray = missing and not wrong and {*_OF_CLUSTER}.issuperset(missing)
        state: Literal["warning", "problem"] = "warning" if without_ray else "problem"
        where = f"{sys.executable} -m pip install 'rlcar[cluster]=={rlcar.__version__}'"
        yield Finding("packages", state, f"{found}; {listed}", where)
    else:
        yield Finding("packages", "ok", found)


_OF_CLUSTER = ("ray", "kubernetes", "optuna", "plotly")
_IMPORTED = (
    *("chex", "dm-haiku", "gymnasium", "jax", "matplotlib", "numpy", "openskill", "optax"),
    *(
        "pillow",
        "prometheus-client",
        "pyarrow",
        "pydantic",
        "pygame-ce",
        "pyyaml",
        "rich",
        "safetensors",
    ),
    *("scipy", "tensorboardx", "typer", "zstandard", *_OF_CLUSTER),
)


def _machine() -> Iterator[Finding]:
    cores, memory_gb = os.cpu_count() or 1, _memory_gb()
    found = f"{cores} cores, {memory_gb:.0f} GB of memory"
    if cores < _FEWEST_CORES or memory_gb < _LEAST_MEMORY_GB:
        yield Finding("machine", "warning", found, "training well takes at least 2 cores and 4 GB")
    else:
        yield Finding("machine", "ok", found)


def _token(environment: Mapping[str, str]) -> Iterator[Finding]:
    check, mode = "token", environment.get("RAY_AUTH_MODE", "").lower()
    if mode not in ("", "token", "disabled"):
        yield Finding(
            check, "problem", f"RAY_AUTH_MODE={mode}", "set it to token or disabled, or unset it"
        )
        return
    try:
        token = find_token(environment)
    except UserError as error:
        yield Finding(check, "problem", str(error), "write the token there, or unset the variable")
        return
    found = f"RAY_AUTH_MODE {mode or 'not set'}, " + (
        f"token from {token.source}" if token else "no token"
    )
    if mode == "token" and token is None:
        yield Finding(check, "problem", found, "ray get-auth-token --generate, or RAY_AUTH_TOKEN")
    elif mode == "" and token is not None:
        # `ray start` then requires the token, and most clients that join do not send it.
        yield Finding(check, "warning", found, "export RAY_AUTH_MODE=token, the same on every node")
    else:
        yield Finding(check, "ok", found)
    named = environment.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else token_path(environment)
    # Ray writes it with the permissions that the umask allows.
    if path is not None and path.is_file() and path.stat().st_mode & 0o077:
        allowed = stat.filemode(path.stat().st_mode)
        yield Finding(
            "token file",
            "warning",
            f"{path} is {allowed}: other users can read it",
            f"chmod 600 {path}",
        )


def _addresses(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Checks that a server answers at addresses from variables and from a file that Ray left."""
    file = Path(environment.get("RAY_TMPDIR") or "/tmp", "ray", "ray_current_cluster")
    try:
        recorded = file.read_text().strip()
    except OSError:
        recorded = ""
    if recorded and not listens(recorded):
        yield Finding(
            "recorded cluster",
            "warning",
            f"{file} names {recorded}, where nothing answers",
            f"rm {file}",
        )
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        address = environment.get(name, "").partition("://")[2] or environment.get(name, "")
        if address not in ("", "auto", "local") and not listens(address):
            found = f"{name}={environment[name]}, where nothing answers"
            yield Finding("address", "problem", found, f"unset {name}, or start that cluster")


def _ports() -> Iterator[Finding]:
    used = [f"{name} {port}" for name, port in _PORTS.items() if listens(f"127.0.0.1:{port}")]
    yield Finding(
        "ports here", "ok", f"in use: {', '.join(used)}" if used else "6379, 8265, 8000 free"
    )


def _storage(runs: Path) -> Iterator[Finding]:
    folder = runs.absolute()
    while not folder.exists():
        folder = folder.parent
    free_gb = shutil.disk_usage(folder).free / _GB
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".rlcar-doctor-") as file:
            file.write(b"\0" * 65536)
            os.fsync(file.fileno())
    except OSError as error:
        yield Finding(
            "run folder", "problem", f"{runs}: {reason_of(error)}", "choose another with --runs"
        )
        return
    found = f"{runs.absolute()} can be written, {free_gb:.0f} GB free"
    state: Literal["ok", "warning", "problem"] = "ok"
    if free_gb < _LITTLE_DISK_GB:
        state = "problem" if free_gb < _LEAST_DISK_GB else "warning"
    fix = "" if state == "ok" else "free some space: a checkpoint with its replay may take 1 GB"
    yield Finding("run folder", state, found, fix)


def _shared_memory(folder: Path = Path("/dev/shm")) -> Iterator[Finding]:
    if not folder.is_dir():
        return
    size_gb, wanted_gb = shutil.disk_usage(folder).total / _GB, _SHARED_MEMORY_SHARE * _memory_gb()
    found = f"{folder} holds {size_gb:.1f} GB"
    fix = (
        "start the container with --shm-size=2g or more (Kubernetes: an emptyDir of medium Memory)"
    )
    if size_gb < _LEAST_SHARED_MEMORY_GB:
        yield Finding("shared memory", "problem", found, fix)
    elif size_gb < wanted_gb:
        short = f"{found}; Ray uses the disk beyond that, and prefers {wanted_gb:.1f} GB"
        yield Finding("shared memory", "warning", short, fix)
    else:
        yield Finding("shared memory", "ok", found)


def _gpus(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Compares the numbers of GPUs that the NVIDIA driver, JAX and Ray find."""
    driver = _output(["nvidia-smi", "-L"]).count("GPU ")
    jax, ray = (
        _output_of_python(_JAX_GPUS, environment),
        _output_of_python(_RAY_GPUS, environment),
    )
    found = f"driver {driver}, JAX {jax or '?'}, Ray {ray or '?'}"
    if not jax:
        fix = f"run {sys.executable} -c 'import jax; jax.devices()' to see the reason"
        yield Finding("GPU", "problem", "JAX finds no device at all", fix)
    elif driver == 0 and jax == "0":
        yield Finding("GPU", "ok", "none, and none is needed")
    elif jax == "0":
        fix = "pip install 'rlcar[gpu]', or unset JAX_PLATFORMS"
        yield Finding("GPU", "warning", found, fix)
    elif ray and ray != jax:
        fix = "start the node with ray start --num-gpus, or correct CUDA_VISIBLE_DEVICES"
        yield Finding("GPU", "warning", found, fix)
    else:
        yield Finding("GPU", "ok", found)


# In separate processes, because JAX reserves memory on each GPU when it looks for them.
_JAX_GPUS = "import jax; print(sum(d.platform == 'gpu' for d in jax.devices()))"
_RAY_GPUS = (
    "from ray._private.accelerators import NvidiaGPUAcceleratorManager as manager; "
    "print(manager.get_current_node_num_accelerators())"
)


def _output_of_python(program: str, environment: Mapping[str, str]) -> str:
    quiet = {**environment, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return _output([sys.executable, "-W", "ignore", "-c", program], quiet).strip()


def _output(command: list[str], environment: Mapping[str, str] | None = None) -> str:
    """Returns the output of a command; an empty string if it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=True, env=environment
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def listens(address: str, timeout_s: float = 3.0) -> bool:
    """Says whether a TCP connection to `host:port` succeeds."""
    host, _, port = address.rstrip("/").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout_s).close()
    except (OSError, ValueError, OverflowError, UnicodeError):
        return False
    return True


def _memory_gb() -> float:
    """Returns the memory of the machine, or of the container if that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return total / _GB  # "max", or no container
    return total / _GB


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
