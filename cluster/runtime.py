"""Starts Ray for this run alone, or joins a running cluster."""

import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray

from cluster.config import ClusterConfig
from cluster.jobs.auth_token import find_token
from rlcar.envs import making
from rlcar.errors import UserError
from rlcar.system import logs
from rlcar.system.user_folders import can_be_written, folder_for_sockets, home_folder, paths_fit

_LONGEST_OF_RAY = len("ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.10")


@contextlib.contextmanager
def ray_runtime(config: ClusterConfig) -> Iterator[None]:
    """Leaves Ray as it found it; raises UserError when the cluster cannot be reached."""
    if ray.is_initialized():
        yield
        return
    if config.address is None:
        # Ray starts workers at niceness 15: beside anything else on a busy laptop the learner would
        # starve. Simulators step back by themselves (`SimActor`).
        os.environ.setdefault("RAY_worker_niceness", "0")
        cores = os.cpu_count() or 1
        number = config.simulators if isinstance(config.simulators, int) else 1
        wanted = config.learner_cpus + config.simulator_cpus * number
        with own_ray() as arguments:
            # "local" and not None: None would join a recorded cluster, even a dead one.
            ray.init(
                address="local",
                num_cpus=max(cores, int(wanted + 0.999)),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env=_environment(),
                **arguments,
            )
            yield from _until_the_end()
    else:
        _join(config)
        yield from _until_the_end()


def _until_the_end() -> Iterator[None]:
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def own_ray() -> Iterator[dict[str, Any]]:
    """Prepares a Ray that this process starts; yields further arguments for `ray.init`.

    Such a Ray keeps its sockets below TMPDIR, whatever its length, and a token in the home folder,
    whether or not there is one. Where that would fail, it gets a short folder and a token of its
    own.
    """
    home = home_folder()
    is_kept = home is not None and can_be_written(home / ".ray")
    if not is_kept and os.environ.get("RAY_AUTH_MODE", "token") == "token" and not find_token():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    if paths_fit(folder, _LONGEST_OF_RAY) and can_be_written(Path(folder)):
        yield {}
        return
    with folder_for_sockets("rlcar-ray-", _LONGEST_OF_RAY) as short:
        yield {"_temp_dir": short}


def _join(config: ClusterConfig) -> None:
    host, colon, port = str(config.address).rpartition(":")
    try:
        if colon and port.isdecimal() and "/" not in host:
            # Ray itself knocks at a closed door for a quarter of an hour, and says so each time.
            socket.create_connection((host, int(port)), config.connect_timeout_s).close()
        ray.init(
            address=config.address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env=_environment(),
        )
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        raise UserError(_unreachable(str(config.address), error)) from error


def _environment() -> dict[str, Any]:
    """What actors inherit from the driver, wherever they are."""
    variables = logs.inherited() | making.inherited()
    return {"env_vars": variables} if variables else {}


def _unreachable(address: str, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    message = f"cannot join the Ray cluster at {address}: {reason}"
    if os.environ.get("RAY_AUTH_MODE") == "token":
        message += ". If that cluster runs, its token may be another one than RAY_AUTH_TOKEN here"
    else:
        message += (
            ". If that cluster runs, it probably wants Ray's token authentication: set "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or ~/.ray/auth_token) as on its head node"
        )
    return message
