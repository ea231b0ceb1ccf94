"""`rlcar models track`: copies versions, aliases and rollouts to experiment trackers."""

from typing import TYPE_CHECKING, Annotated

import typer

from rlcar.cli.shared import MODELS, RUNS, RunsFolder, Where, say
from rlcar.errors import ConfigError, UserError
from rlcar.settings.explain import explain

if TYPE_CHECKING:
    from rlcar.config.sections import TrackingConfig
    from rlcar.registry import Registry
    from rlcar.registry.tracking import TrackedRollout


def track(
    to: Annotated[
        list[str] | None, typer.Option(help="Tracker: mlflow or wandb; repeatable.")
    ] = None,
    project: Annotated[
        str, typer.Option(help="Experiment and model of MLflow, and project of W&B.")
    ] = "rlcar",
    mlflow_uri: Annotated[
        str,
        typer.Option(
            help="Database or server of MLflow (default: MLFLOW_TRACKING_URI, or mlflow.db in the "
            "folder of runs)."
        ),
    ] = "",
    alias: Annotated[
        list[str] | None,
        typer.Option(help="Alias whose rollouts to copy; repeatable (default: champion)."),
    ] = None,
    runs: RunsFolder = RUNS,
    registry: Where = MODELS,
) -> None:
    """Copies versions, aliases and rollouts to MLflow or Weights & Biases, beside their runs."""
    from rlcar.registry import Registry
    from rlcar.registry.tracking import track_registry

    if not to:
        raise UserError("name a tracker with --to mlflow or --to wandb")
    settings = _settings(to, project, mlflow_uri)
    opened = Registry(registry)
    rollouts = [one for name in alias or ["champion"] for one in _rollouts(opened, name)]
    runs.mkdir(parents=True, exist_ok=True)
    track_registry(opened, settings, rollouts, runs, say)


def _settings(to: list[str], project: str, mlflow_uri: str) -> "TrackingConfig":
    import pydantic

    from rlcar.config.sections import TrackingConfig

    try:
        return TrackingConfig.model_validate(
            {"trackers": to, "project": project, "mlflow_uri": mlflow_uri}
        )
    except pydantic.ValidationError as error:
        raise ConfigError(explain(error, TrackingConfig)) from None


def _rollouts(registry: "Registry", alias: str) -> "list[TrackedRollout]":
    from rlcar.registry.tracking import TrackedRollout
    from serve.delivery.operator import Operator
    from serve.delivery.report import listed
    from serve.delivery.state import ENDED

    entries = Operator(registry, alias, "tracking").read().entries
    return [
        TrackedRollout(
            one["rollout"], one["stable"], one["candidate"], one["phase"],
            one["phase"] in ENDED, one["message"], one["started_s"],
        )
        for one in reversed(listed(entries))
    ]  # fmt: skip
