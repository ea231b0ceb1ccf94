"""Publishes a run for `rlcar serve`, and decides which version the server follows."""

from pathlib import Path
from typing import NamedTuple

from rlcar.errors import UserError, command
from rlcar.registry import Registry
from rlcar.runs.completion import Completion, completion_of
from rlcar.runs.folders import newest_first, require_run
from rlcar.storage import checkpoint
from serve.policy.policy import try_model


class Published(NamedTuple):
    """A run that was published in order to be served."""

    follow: str  # an alias, or the number of a version
    message: str  # for the user


def publish_for_serving(
    registry: Registry, run: Path | None, runs: Path, alias: str, *, should_promote: bool = False
) -> Published | None:
    """Publishes `run`, or without one the newest complete run of `runs` if the registry is empty.

    The new version of a complete run becomes `alias` if that does not exist yet, and that of any
    run if `should_promote` is true. Otherwise the alias stays as it is, and the server follows the
    number of the new version. Returns None if nothing was published.
    """
    if run is None:
        if registry.versions():
            return None
        run = _newest_complete(registry, runs)
    completion = completion_of(require_run(run))
    version = registry.publish(run, "published by rlcar serve")
    published = f"published {run} as version {version.number}"
    before = registry.aliases().get(alias)
    if should_promote or (before is None and completion.is_complete):
        registry.promote(version.number, alias, try_model)
        moved = "" if before is None else f", before it version {before}"
        return Published(alias, f"{published}, which is {alias} now{moved}")
    try_model(registry.open(version.number))
    promote = ["models", "promote", version.number]
    promote += [] if alias == "champion" else ["--alias", alias]
    if before is not None:
        how, why = "to move it", f"{alias} is still version {before}"
    else:
        how = "to set it"
        why = f"its training is incomplete ({_steps(completion)}), so no version is {alias} yet"
    how += f": {command(*promote)}, or serve with --promote"
    return Published(str(version.number), f"{published} and serving it; {why} ({how})")


def _newest_complete(registry: Registry, runs: Path) -> Path:
    """Returns the newest complete run; raises UserError without one.

    A run that is still being trained, or that was stopped, is published only if the user names it.
    """
    trained = [run for run in newest_first(runs) if _has_policy(run)]
    for run in trained:
        if completion_of(run).is_complete:
            return run
    if not trained:
        raise UserError(
            f"{registry.place} holds no model and {runs} no run: train one (rlcar train), "
            "or name another --registry"
        )
    raise UserError(
        f"{registry.place} holds no model, and the training of {trained[0]} is incomplete "
        f"({_steps(completion_of(trained[0]))}): wait for its end, or serve its best policy so far "
        f"with: {command('serve', trained[0])}"
    )


def _steps(completion: Completion) -> str:
    return f"{completion.env_steps:,} of {completion.total_env_steps:,} env steps"


def _has_policy(run: Path) -> bool:
    return any(checkpoint.latest(run / kind) for kind in ("best", "checkpoints"))
