"""Collects the content of a version from a run: the policy's arrays, settings, laps, lineage."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlcar.agents import algorithm_of
from rlcar.agents.observation_scaling import NORMALISER
from rlcar.config import load_config
from rlcar.envs.schema import schema_of
from rlcar.errors import CheckpointError, RegistryError
from rlcar.evaluation.environment import spec_of
from rlcar.evaluation.lap_reference import REFERENCE_FILE
from rlcar.registry.model_file import parse_json
from rlcar.runs.run import require_run
from rlcar.storage import checkpoint
from rlcar.system.regular_file import read_regular

_FIGURES = ("track_set", "tracks", "time_limit_steps", "bound_steps", "lap_rate", "lap_time_steps")
_SCORES = ("over_bound_pct", "crash_rate", "timeout_rate", "smoothness", "per_track")

Content = tuple[dict[str, np.ndarray], dict[str, Any], dict[str, Any] | None]


def content_of_run(path: Path, description: str) -> Content:
    """Reads a run's best policy, or one checkpoint; returns arrays, metadata and the report.

    Raises CheckpointError for damaged saves and UserError for a folder that is not a run.
    """
    folder = require_run(path)
    save, arrays = _load(folder, path)
    config = load_config(checkpoint.config_path(save))
    observation, action = schema_of(config, spec_of(config))
    report = _report(folder, save)
    meta = save.meta
    metadata = {
        "description": description,
        "algorithm": config.algorithm,
        "config": json.loads(config.model_dump_json()),
        "observation": observation,
        "action": action,
        "normaliser": NORMALISER if algorithm_of(config).normalises_observations else None,
        "laps": laps(report),
        "lineage": {
            "run": folder.resolve().name,
            "checkpoint": save.path.name,
            "env_steps": save.env_steps,
            "train_steps": meta.get("train_steps"),
            "seed": config.seed,
            "commit": meta.get("commit"),
            "trained": meta.get("created"),
            "versions": meta.get("versions"),
            "cost": meta.get("metric"),
            "data": config.data.fingerprint or None,
            "data_origins": list(config.data.origins) or None,
        },
    }
    return arrays, metadata, report


def laps(report: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Returns the report's figures of the policy."""
    if report is None or "drivers" not in report:
        return None
    scores = report["drivers"][report["driver"]]
    return {
        **{name: report[name] for name in _FIGURES},
        **{name: scores[name] for name in _SCORES},
    }


def _load(folder: Path, path: Path) -> tuple[checkpoint.Save, dict[str, np.ndarray]]:
    """Reads the arrays, again if a training replaces the run's best save meanwhile."""
    while True:
        save = _find_save(folder, path)
        try:
            return save, checkpoint.load_arrays(save, "policy")
        except CheckpointError:
            if _find_save(folder, path).path == save.path:
                raise


def _find_save(folder: Path, path: Path) -> checkpoint.Save:
    if path.resolve() != folder.resolve():
        return checkpoint.open_save(path)
    save = checkpoint.latest(folder / "best") or checkpoint.latest(folder / "checkpoints")
    if save is None:
        raise CheckpointError(f"{folder} holds no complete checkpoint yet: train it first")
    return save


def _report(folder: Path, save: checkpoint.Save) -> dict[str, Any] | None:
    """Returns the run's report if it is about this checkpoint."""
    path = folder / "report.json"
    try:
        report = parse_json(read_regular(path), "it")
        _ = laps(report)  # checks that all figures are there
        is_its_own = report["checkpoint"] == save.path.name
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RegistryError(
            f"cannot read {path} ({type(error).__name__}: {error}): run rlcar evaluate {folder} "
            "again"
        ) from error
    if not is_its_own:
        return None
    reference = _reference(folder, save)
    return report if reference is None else {**report, "reference": reference}


def _reference(folder: Path, save: checkpoint.Save) -> dict[str, Any] | None:
    """Returns the distributions of the report's laps, from the same evaluation.

    Runs that an older rlcar has evaluated have none.
    """
    path = folder / REFERENCE_FILE
    try:
        tree = parse_json(read_regular(path), "it")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RegistryError(
            f"cannot read {path} ({type(error).__name__}: {error}): run rlcar evaluate {folder} "
            "again"
        ) from error
    is_its_own = isinstance(tree, dict) and tree.pop("checkpoint", None) == save.path.name
    return tree if is_its_own and tree else None
