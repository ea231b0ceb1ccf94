"""Starts Ray for one command, or joins a running cluster."""

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
from rlcar.system.interrupt import exiting_at_sigterm
from rlcar.system.user_folders import can_be_written, folder_for_sockets, home_folder, paths_fit

# Ray appends a path of at most this length to its temporary folder; a Unix socket path is limited.
_LONGEST_SOCKET_PATH = len("ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.10")

# Rounds cores up to whole ones, except for the tiny share (0.0001) that sweeps give to simulators.
_ROUND_UP = 0.999


@contextlib.contextmanager
def ray_runtime(config: ClusterConfig) -> Iterator[None]:
    """Provides Ray within a `with` block; raises UserError if the cluster cannot be reached.

    A Ray that is already initialised in this process stays as it is.
    """
    if ray.is_initialized():
        yield
        return
    if config.address is None:
        # Ray starts workers at niceness 15, at which the learner would starve on a busy laptop.
        # Simulators raise their own niceness (`SimulatorProcess`).
        os.environ.setdefault("RAY_worker_niceness", "0")
        cores = os.cpu_count() or 1
        simulators = config.simulators if isinstance(config.simulators, int) else 1
        needed_cpus = config.learner_cpus + config.simulator_cpus * simulators
        with own_ray() as arguments:
            start_ray(
                num_cpus=max(cores, int(needed_cpus + _ROUND_UP)),
                runtime_env=_environment(),
                **arguments,
            )
            yield from _shut_down_at_the_end()
    else:
        join_ray(config.address, config.connect_timeout_s, runtime_env=_environment())
        yield from _shut_down_at_the_end()


def _shut_down_at_the_end() -> Iterator[None]:
    with exiting_at_sigterm():
        try:
            yield
        finally:
            ray.shutdown()


@contextlib.contextmanager
def own_ray() -> Iterator[dict[str, Any]]:
    """Prepares the start of Ray in this process; yields additional arguments for `ray.init`.

    Ray creates its sockets below TMPDIR, even if the paths become too long, and writes its token
    into the home folder, even if there is none. Where that would fail, this function provides a
    short temporary folder and a token in the environment.
    """
    home = home_folder()
    has_writable_home = home is not None and can_be_written(home / ".ray")
    if (
        not has_writable_home
        and os.environ.get("RAY_AUTH_MODE", "token") == "token"
        and not find_token()
    ):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    if paths_fit(folder, _LONGEST_SOCKET_PATH) and can_be_written(Path(folder)):
        yield {}
        return
    with folder_for_sockets("rlcar-ray-", _LONGEST_SOCKET_PATH) as short:
        yield {"_temp_dir": short}


def start_ray(**arguments: Any) -> None:
    """Starts a Ray of this process; raises UserError if it does not come up.

    `arguments` are passed on to `ray.init`.
    """
    try:
        # With None instead of "local", Ray would join a cluster recorded in /tmp, even a dead one.
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **arguments,
        )
    except Exception as error:  # Ray raises Exception itself when it misses its deadline of 30 s.
        ray.shutdown()
        raise UserError(
            f"Ray did not start on this machine: {_reason(error)}. On a busy machine Ray can miss "
            "its own deadline of 30 s: try again when there is less to do"
        ) from error


def join_ray(address: str, timeout_s: float, **arguments: Any) -> None:
    """Joins the cluster at an address; raises UserError if it cannot be reached.

    `arguments` are passed on to `ray.init`.
    """
    host, colon, port = address.rpartition(":")
    try:
        if colon and port.isdecimal() and "/" not in host:
            # At a closed port Ray itself retries for a quarter of an hour and prints each failure.
            socket.create_connection((host, int(port)), timeout_s).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **arguments)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        raise UserError(_unreachable(address, error)) from error


def _environment() -> dict[str, dict[str, str]]:
    """Returns the runtime environment that actors on every node inherit from the driver."""
    variables = logs.inherited() | making.inherited()
    return {"env_vars": variables} if variables else {}


def _unreachable(address: str, error: Exception) -> str:
    message = f"cannot join the Ray cluster at {address}: {_reason(error)}"
    if os.environ.get("RAY_AUTH_MODE") == "token":
        message += ". If that cluster is running, its token may differ from RAY_AUTH_TOKEN here"
    else:
        message += (
            ". If that cluster is running, it probably requires Ray's token authentication: set "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or ~/.ray/auth_token) as on its head node"
        )
    return message


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
