"""Publishes a run for `rlcar serve`, and decides which version the server follows."""

from pathlib import Path
from typing import NamedTuple

from rlcar.errors import UserError, command
from rlcar.registry import Registry
from rlcar.runs.folders import newest_first
from rlcar.storage import checkpoint
from serve.policy.policy import try_model


class Published(NamedTuple):
    """A run that was published in order to be served."""

    follow: str  # an alias, or the number of a version
    message: str  # for the user


def publish_for_serving(
    registry: Registry, run: Path | None, runs: Path, alias: str, *, should_promote: bool = False
) -> Published | None:
    """Publishes `run`, or without one the newest of `runs` if the registry is empty.

    The new version becomes `alias` if that does not exist yet or `should_promote` is true.
    Otherwise the alias stays, and the server follows the number of the new version. Returns None if
    nothing was published.
    """
    if run is None:
        if registry.versions():
            return None
        run = next(filter(_has_policy, newest_first(runs)), None)
        if run is None:
            raise UserError(
                f"{registry.place} holds no model and {runs} no run: train one (rlcar train), "
                "or name another --registry"
            )
    version = registry.publish(run, "published by rlcar serve")
    published = f"published {run} as version {version.number}"
    before = registry.aliases().get(alias)
    if before is None or should_promote:
        registry.promote(version.number, alias, try_model)
        moved = "" if before is None else f", before it version {before}"
        return Published(alias, f"{published}, which is {alias} now{moved}")
    try_model(registry.open(version.number))
    promote = ["models", "promote", version.number]
    promote += [] if alias == "champion" else ["--alias", alias]
    return Published(
        str(version.number),
        f"{published} and serving it; {alias} is still version {before} (to move it: "
        f"{command(*promote)}, or serve with --promote)",
    )


def _has_policy(run: Path) -> bool:
    return any(checkpoint.latest(run / kind) for kind in ("best", "checkpoints"))
