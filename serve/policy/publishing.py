"""So that what was just trained can be served by one command."""

from pathlib import Path

from rlcar.errors import UserError
from rlcar.registry import Registry
from rlcar.storage import checkpoint
from serve.policy.policy import try_model


def publish_for_serving(registry: Registry, run: Path | None, runs: Path, alias: str) -> str | None:
    """Publishes `run` and points the alias at it; without one, the newest run if nothing is there.

    Returns a sentence about what was published, if anything was.
    """
    if run is None:
        if registry.versions():
            return None
        run = _newest(runs)
        if run is None:
            raise UserError(
                f"{registry.place} holds no model and {runs} no run: train one (rlcar train), "
                "or name another --registry"
            )
    version = registry.publish(run, "published by rlcar serve")
    registry.promote(version.number, alias, try_model)
    return f"published {run} as version {version.number}, which is {alias} now"


def _newest(runs: Path) -> Path | None:
    """The run whose best policy is the newest."""
    times = {
        save.path.stat().st_mtime: folder
        for folder in runs.glob("*")
        if (save := checkpoint.latest(folder / "best") or checkpoint.latest(folder / "checkpoints"))
    }
    return times[max(times)] if times else None
