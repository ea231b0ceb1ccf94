"""A run in Weights & Biases; offline without an account, to be uploaded with `wandb sync`."""

import contextlib
import logging
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlcar.runs.tracking.tracker import Row, TrackingError, missing_package
from rlcar.system import logs

EXTRA = "wandb"
MODE_VARIABLE = "WANDB_MODE"
_FINISH_S = 60.0  # in which the last rows must be uploaded


def begin(
    folder: Path,
    project: str,
    identity: str,
    run_name: str,
    config: Mapping[str, Any],
    kind: str = "training",
    mode: str | None = None,
) -> Any:
    """Begins or continues a run of W&B, whose files are below `folder`; raises TrackingError.

    Without a `mode`, it is that of `mode_of`.
    """
    wandb = _import_wandb()
    # Only what we send: no output, no source code and no repository of the working folder.
    settings = wandb.Settings(
        console="off", silent=True, disable_git=True, disable_code=True, save_code=False,
        finish_timeout=_FINISH_S,
    )  # fmt: skip
    mode = mode or mode_of(folder)
    with _explaining(wandb):
        return wandb.init(
            project=project, id=identity, name=run_name, resume="allow", dir=folder, mode=mode,
            config=dict(config), job_type=kind, settings=settings, reinit="create_new",
        )  # fmt: skip


def mode_of(folder: Path) -> str:
    """Returns what WANDB_MODE says, or `online` with an account on this machine, else `offline`.

    Raises TrackingError if W&B is not installed or cannot be used. `folder` is that of the runs.
    """
    wandb = _import_wandb()
    if mode := os.environ.get(MODE_VARIABLE):
        return mode
    with _explaining(wandb):
        has_account = wandb.login(prompt=False)
    if has_account:
        return "online"
    logs.announce(
        f"Weights & Biases has no account here, so the run stays offline: upload it later with "
        f"wandb sync {folder / 'wandb'}/offline-run-*"
    )
    return "offline"


def _import_wandb() -> Any:
    try:
        import wandb
    except ModuleNotFoundError as error:
        raise missing_package(EXTRA, error) from None
    logging.getLogger("wandb").setLevel(logging.WARNING)
    return wandb


@contextlib.contextmanager
def _explaining(wandb: Any) -> Iterator[None]:
    try:
        yield
    except wandb.Error as error:
        text = (str(error) or type(error).__name__).splitlines()[0][:300]
        raise TrackingError(
            f"Weights & Biases cannot be used: {text} (log in with `wandb login`, or set "
            f"{MODE_VARIABLE}=offline)"
        ) from None


class WandbTracker:
    """One run of Weights & Biases."""

    name = "Weights & Biases"

    def __init__(
        self,
        folder: Path,
        project: str,
        run_name: str,
        tags: Mapping[str, str],
        params: Mapping[str, str],
        identity: str | None,
    ):
        """Continues the run `identity`, or begins one; raises TrackingError."""
        self.identity = identity or uuid.uuid4().hex
        self._run = begin(folder, project, self.identity, run_name, {**params, **tags})
        # A training that returns to a checkpoint repeats env steps, so these are no step of W&B.
        self._run.define_metric("*", step_metric="env_steps")

    def write(self, rows: Sequence[Row]) -> None:
        """Hands rows to W&B's own process."""
        for row in rows:
            self._run.log({"env_steps": row.env_steps, **row.metrics})

    def close(self, is_finished: bool) -> None:
        """Ends the run, after the upload or a minute."""
        self._run.finish(exit_code=0 if is_finished else 1)
