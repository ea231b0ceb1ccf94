"""Starts Ray for this run alone, or joins a running cluster."""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from typing import Any

import ray

from cluster.config import ClusterConfig
from rlcar import logs
from rlcar.envs import making
from rlcar.errors import UserError


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
        # "local" and not None: None would join a recorded cluster, even a dead one.
        ray.init(
            address="local",
            num_cpus=max(cores, int(wanted + 0.999)),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env=_environment(),
        )
    else:
        _join(config)
    try:
        yield
    finally:
        ray.shutdown()


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
