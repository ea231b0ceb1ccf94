"""A whole selection: train, compare, publish, report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlcar.config import Config
from rlcar.datasets import Dataset
from rlcar.errors import DatasetError
from rlcar.evaluation.off_policy.fitted_q import FittedQSettings
from rlcar.evaluation.run_report import evaluate_run
from rlcar.offline.candidates import (
    Say,
    Trained,
    estimate_candidates,
    estimated_results,
    lap_figures,
    measure,
    run_folder,
    train_candidates,
)
from rlcar.offline.plan import keep_plan
from rlcar.offline.report import write_report
from rlcar.offline.selection import Measure, choose_by_estimates, choose_by_measures
from rlcar.registry import Registry, Version
from rlcar.registry.from_run import content_of_run
from rlcar.storage.checkpoint import provenance


def select(
    dataset: Dataset,
    held_out: Dataset | None,
    configs: Mapping[str, Config],
    out: Path,
    registry: Registry | None,
    settings: FittedQSettings,
    say: Say,
) -> dict[str, Any]:
    """Trains the candidates, compares them, publishes the best one, and writes the report.

    `held_out` are the episodes of the data set that no candidate learns from, if there are any: the
    estimates use them alone. Continues what an earlier call with the same arguments began. Returns
    the contents of `selection.json`. Raises StoppedError after Ctrl-C, and NonFiniteError if the
    baseline diverged.
    """
    keep_plan(out, dataset, held_out, configs)
    trained, failed = train_candidates(out, configs, say)
    say("comparing the candidates")
    measured, measures = measure(trained)
    try:
        estimates = estimate_candidates(held_out or dataset, trained, out, settings)
    except DatasetError as error:
        if not measures:
            raise
        say(f"no estimates from data: {error}")
        estimates = None
    if measures:
        choice = choose_by_measures(measures)
    else:
        choice = choose_by_estimates(list(trained), estimates)
    chosen = trained[choice.name]
    if chosen.config.is_race:
        evaluate_run(chosen.folder)
    version = None if registry is None else _publish(registry, chosen, dataset)
    result = {
        "data": str(dataset.folder),
        "data_sha256": dataset.fingerprint,
        "world": dataset.world.label,
        "episodes": dataset.episodes,
        "transitions": dataset.transitions,
        "held_out_episodes": None if held_out is None else held_out.episodes,
        "measured": measured,
        "chosen": choice.name,
        "reason": choice.reason,
        "published": None if version is None else version.number,
        "registry": None if registry is None else registry.place,
        "candidates": {
            name: _figures_of_failed(out, name, failed[name])
            if name in failed
            else _figures(trained[name], measures.get(name), estimates)
            for name in configs
        },
        "provenance": provenance(chosen.config.seed),
    }
    write_report(out, result)
    return result


def _figures(
    candidate: Trained, measured: Measure | None, estimates: Mapping[str, Any] | None
) -> dict[str, Any]:
    estimated = estimated_results(estimates).get(candidate.policy.name)
    return {
        "run": str(candidate.folder),
        "failed": None,
        "cost": None if measured is None else float(measured.cost.mean()),
        "cost_interval": None if measured is None else measured.interval(),
        "laps": lap_figures(candidate) if candidate.config.is_race else None,
        "verdict": None if estimated is None else estimated["verdict"],
        "estimate": None if estimated is None else estimated["estimate"],
    }


def _figures_of_failed(out: Path, name: str, reason: str) -> dict[str, Any]:
    nothing = dict.fromkeys(("cost", "cost_interval", "laps", "verdict", "estimate"))
    return {"run": str(run_folder(out, name)), "failed": reason, **nothing}


def _publish(registry: Registry, chosen: Trained, dataset: Dataset) -> Version:
    """Publishes a run, unless this checkpoint of it is published already."""
    description = f"best of a selection from {dataset.folder.resolve().name}"[:200]
    _, metadata, _ = content_of_run(chosen.folder, description)
    for version in registry.versions():
        if metadata["lineage"].items() <= version.metadata["lineage"].items():
            return version
    return registry.publish(chosen.folder, description)
