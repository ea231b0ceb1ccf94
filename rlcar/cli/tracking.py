"""`rlcar models track`: copies versions, aliases and rollouts to experiment trackers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlcar.cli.shared import MODELS, RUNS, RunsFolder, Where, say
from rlcar.errors import ConfigError, UserError
from rlcar.settings.explain import explain

if TYPE_CHECKING:
    from rlcar.config.sections import TrackingConfig
    from rlcar.registry import Registry
    from rlcar.registry.tracking import TrackedEvent
    from serve.delivery.events import Entry


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
    pipeline: Annotated[
        list[Path] | None, typer.Option(help="Folder of a pipeline to copy too; repeatable.")
    ] = None,
    runs: RunsFolder = RUNS,
    registry: Where = MODELS,
) -> None:
    """Copies versions, aliases, rollouts and pipelines to MLflow or Weights & Biases."""
    from rlcar.registry import Registry
    from rlcar.registry.tracking import track_registry

    if not to:
        raise UserError("name a tracker with --to mlflow or --to wandb")
    settings = _settings(to, project, mlflow_uri)
    opened = Registry(registry)
    events = [one for name in alias or ["champion"] for one in _rollouts(opened, name)]
    events += [one for folder in pipeline or [] for one in _pipeline_runs(folder)]
    runs.mkdir(parents=True, exist_ok=True)
    track_registry(opened, settings, events, runs, say)


def _settings(to: list[str], project: str, mlflow_uri: str) -> "TrackingConfig":
    import pydantic

    from rlcar.config.sections import TrackingConfig

    try:
        return TrackingConfig.model_validate(
            {"trackers": to, "project": project, "mlflow_uri": mlflow_uri}
        )
    except pydantic.ValidationError as error:
        raise ConfigError(explain(error, TrackingConfig)) from None


def _rollouts(registry: "Registry", alias: str) -> "list[TrackedEvent]":
    from rlcar.registry.tracking import TrackedEvent
    from serve.delivery.operator import Operator
    from serve.delivery.report import listed

    entries = Operator(registry, alias, "tracking").read().entries
    ends = _ends(entries)
    return [
        TrackedEvent(
            kind="rollout",
            name=one["rollout"],
            status=one["phase"],
            ended_s=ends.get(one["rollout"]),
            is_good=one["phase"] == "Healthy",
            began_s=one["started_s"],
            candidate=one["candidate"],
            details={"stable": str(one["stable"]), "message": one["message"], "alias": alias},
            metrics={"weight_pct": one["weight"]},
        )
        for one in reversed(listed(entries))
    ]


def _ends(entries: "list[Entry]") -> dict[str, float]:
    """Returns when each rollout that is over reached its last phase, in Unix time."""
    from serve.delivery.state import ENDED, RolloutState, apply

    state: RolloutState | None = None
    reached: dict[str, tuple[str, float]] = {}
    for entry in entries:
        state = apply(state, entry)
        if reached.get(state.rollout, ("", 0.0))[0] != state.phase:
            reached[state.rollout] = (state.phase, entry.time_s)
    return {name: time_s for name, (phase, time_s) in reached.items() if phase in ENDED}


def _pipeline_runs(folder: Path) -> "list[TrackedEvent]":
    """Returns the runs of a pipeline with the time of each stage; UserError for another folder."""
    from cluster.pipeline import journal
    from rlcar.registry.tracking import TrackedEvent

    runs = journal.runs(folder)
    if not runs:
        raise UserError(f"{folder} holds no run of a pipeline: name the folder of a pipeline")
    found = []
    for run in runs:
        entries, values = run.entries(), run.values()
        details = {
            "run": values.get("trained_run") and Path(values["trained_run"]).name,
            "data": values.get("learned_sha256"),
            "rollout": values.get("rollout"),
            "parent": values.get("parent"),
            "message": entries[-1].sentence if entries else "",
        }
        found.append(
            TrackedEvent(
                kind="pipeline",
                name=f"{folder.resolve().name}/{run.number}",
                status=run.outcome or "open",
                ended_s=entries[-1].ended_s if run.outcome is not None else None,
                is_good=run.outcome in ("promoted", "shadowed"),
                began_s=run.began_s,
                candidate=values.get("candidate"),
                details={name: str(value) for name, value in details.items() if value},
                metrics={
                    f"stage/{one.stage.replace(' ', '_')}_s": one.ended_s - one.began_s
                    for one in entries
                },
            )
        )
    return found
