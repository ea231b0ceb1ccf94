"""`rlcar watch`: the live page of a run, while it learns or afterwards."""

import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from rlcar.cli.shared import (
    MODELS,
    RUNS,
    TOKENS,
    AllowAnonymous,
    Auth,
    Direct,
    Host,
    RunsFolder,
    TokensFile,
    Where,
    number,
    prepare_jax_on_cpu,
    print_page,
)
from rlcar.errors import UserError
from rlcar.system.user_folders import expanded

_PORT = 8001
_POLL_S = 0.2
_WAIT_FOR_RUN_S = 120.0  # how long a training on Ray may take until its run exists
_STOP_S = 10.0


def watch(
    run: Annotated[
        str, typer.Argument(help="Run folder, or latest: the run below --runs that saved last.")
    ],
    port: Annotated[int, number(0, 65_535, help="Port to listen on; 0 takes a free one.")] = _PORT,
    host: Host = "127.0.0.1",
    registry: Where = MODELS,
    runs: RunsFolder = RUNS,
    wait_s: Annotated[
        float, number(0, 1_000_000, help="Seconds to wait for the run to begin.")
    ] = 0.0,
    auth: Auth = False,
    tokens: TokensFile = TOKENS,
    allow_anonymous: AllowAnonymous = False,
    direct: Direct = False,
) -> None:
    """Opens the page on which a run can be watched while it learns, and a car driven by hand."""
    prepare_jax_on_cpu()
    folder = _await_run(run, runs, wait_s)
    from rlcar.config import load_config

    try:
        from serve.live.app import run_live
        from serve.live.session import open_live
        from serve.settings import make_settings
    except ModuleNotFoundError as error:
        raise UserError(f"the page needs {error.name}: pip install 'rlcar[serve]'") from error
    settings = make_settings(
        registry=registry,
        host=host,
        port=port,
        auth=auth,
        tokens=expanded(tokens).absolute() if auth else tokens,
        allow_anonymous=allow_anonymous,
    )
    config = load_config(folder / "config.json")
    # The page needs no published version, so a registry without one is no reason to warn.
    logging.getLogger("serve.app").setLevel(logging.ERROR)
    live = open_live(registry, folder, config.race, environment=config.environment)
    run_live(live, settings, print_page, is_direct=direct)


@contextlib.contextmanager
def showing_page(folder: Path, port: int, registry: str) -> Iterator[None]:
    """Runs `rlcar watch` in a process of its own, which ends with the context."""
    command = [sys.executable, "-m", "rlcar.cli", "watch", str(folder)]
    command += ["--port", str(port), "--registry", registry, "--wait-s", str(_WAIT_FOR_RUN_S)]
    # A session of its own keeps Ctrl-C for the training. The page ends when the training does.
    process = subprocess.Popen(
        command, env={**os.environ, "JAX_PLATFORMS": "cpu"}, start_new_session=True
    )
    try:
        yield
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
        process.kill()
        process.wait()


def _await_run(run: str, runs: Path, wait_s: float) -> Path:
    """Returns the run's folder as soon as it exists; raises UserError if it does not in time."""
    from rlcar.runs.run import require_run

    deadline_s = time.monotonic() + wait_s
    while True:
        try:
            return require_run(_newest(runs) if run == "latest" else Path(run))
        except UserError:
            if time.monotonic() >= deadline_s:
                raise
        time.sleep(_POLL_S)


def _newest(runs: Path) -> Path:
    from rlcar.runs.folders import newest_first

    for folder in newest_first(runs):
        if (folder / "run.json").exists():
            return folder
    raise UserError(f"there is no run below {runs} yet: start one with rlcar train")
