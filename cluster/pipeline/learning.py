"""The stages from recorded episodes to a registered version."""

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cluster.pipeline.context import Context, Done
from cluster.pipeline.journal import learned_again, runs
from cluster.pipeline.recordings import NothingLeftError, copy_new, with_earlier
from cluster.pipeline.settings import FineTune, Offline
from rlcar.datasets import Dataset
from rlcar.datasets.validation import validate
from rlcar.errors import NonFiniteError, UserError
from rlcar.evaluation.off_policy.fitted_q import FittedQSettings
from rlcar.offline.candidates import Trained, estimate_candidates, measure, train_candidates
from rlcar.offline.data_settings import candidate_configs
from rlcar.offline.fine_tuning import continued_config
from rlcar.offline.held_out import needs_held_out, set_apart
from rlcar.offline.plan import candidates_for
from rlcar.offline.selection import Choice, choose_by_estimates, choose_by_measures
from rlcar.registry import Model, Version
from rlcar.registry.from_run import content_of_run
from rlcar.registry.metadata import check_metadata

_MOST_FAULTS = 20  # that an entry of the journal names


def collect(context: Context, given: Mapping[str, Any]) -> Done:
    """Copies the recorded episodes of the run's plan into a data set of its own.

    The run ends if fewer are left than a run needs.
    """
    folder = context.run.folder / "data"
    if folder.exists():  # whole, but the process ended before the entry was written
        shutil.rmtree(folder)
    wanted = context.settings.collect
    try:
        copied = copy_new(Path(wanted.recordings), context.run.spans, folder)
    except NothingLeftError as error:
        return Done({"episodes": 0}, str(error), "invalid data")
    data = copied.dataset
    outputs = {
        "data": folder.name,  # below the folder of the run
        "data_sha256": data.fingerprint,
        "episodes": data.episodes,
        "transitions": data.transitions,
        "left_out": copied.faults[:_MOST_FAULTS],
    }
    lost = f"; left out: {'; '.join(copied.faults[:_MOST_FAULTS])}" if copied.faults else ""
    sentence = f"{data.episodes:,} episodes, {data.transitions:,} transitions{lost}"
    if data.episodes < wanted.minimum_episodes:
        sentence = f"fewer than {wanted.minimum_episodes:,} episodes are left: {sentence}"
        return Done(outputs, sentence, "invalid data")
    return Done(outputs, sentence)


def check(context: Context, given: Mapping[str, Any]) -> Done:
    """Checks every number of the new episodes."""
    faults = list(validate(context.run.folder / given["data"]))
    if faults:
        more = f" (and {len(faults) - 1} more faults)" if len(faults) > 1 else ""
        sentence = f"the data are faulty: {faults[0]}{more}"
        return Done({"faults": faults[:_MOST_FAULTS]}, sentence, "invalid data")
    return Done({"faults": []}, "no faults")


def train(context: Context, given: Mapping[str, Any]) -> Done:
    """Trains candidates and keeps the best; raises StoppedError after Ctrl-C, with a checkpoint."""
    settings, held_out = context.settings.train, None
    data = Dataset.open(context.run.folder / given["data"])
    gate = context.settings.gates.off_policy_evaluation
    if gate is not None and not gate.data:
        data, kept = set_apart(data, context.run.folder / "parts")
        held_out = kept.folder.relative_to(context.run.folder).as_posix()
    try:
        if settings.offline is not None:
            folder, outputs, sentence = _learn(context, settings.offline, data)
        else:
            assert settings.fine_tune is not None
            folder, outputs, sentence = _fine_tune(context, settings.fine_tune)
    except NonFiniteError as error:
        return Done({}, f"the training diverged: {error}", "training failed")
    place = folder.relative_to(context.run.folder).as_posix()
    return Done({"trained_run": place, "held_out": held_out, **outputs}, sentence)


def register(context: Context, given: Mapping[str, Any]) -> Done:
    """Publishes the candidate, unless an earlier try did."""
    stable, folder = int(given["stable"]), context.run.folder / given["trained_run"]
    registry = context.registry
    arrays, metadata, report = content_of_run(folder, _description(context))
    own = {name: metadata["lineage"][name] for name in ("run", "checkpoint", "trained")}
    earlier = (one for one in registry.versions() if own.items() <= one.metadata["lineage"].items())
    version = next(earlier, None) or registry.add(arrays, metadata, report, parent=stable)
    outputs = {"candidate": version.number, "parent": stable}
    return Done(outputs, f"version {version.number} of {registry.place}, after version {stable}")


def unpublished(context: Context, folder: Path) -> Model:
    """Returns the candidate as a model that has no number yet."""
    arrays, metadata, _ = content_of_run(folder, _description(context))
    created = datetime.now(UTC).isoformat(timespec="milliseconds")
    return Model(Version(0, created, check_metadata(metadata, "the candidate"), {}), arrays)


def _description(context: Context) -> str:
    return f"run {context.run.number} of the pipeline {context.settings.name}"


def _learn(context: Context, settings: Offline, new: Dataset) -> tuple[Path, dict[str, Any], str]:
    """Returns the run of the best policy that can be learned from the episodes."""
    run, place = context.run, context.training
    before = [one for one in runs(run.folder.parent.parent) if one.number < run.number]
    again = learned_again(before, context.settings.collect.history)
    earlier = [one.folder / "data" for one in again]
    data = with_earlier(new, earlier, run.folder / "learned")
    names = candidates_for(data.spec, settings.algorithms)
    learned, held_out = data, None
    if len(names) > 1 and needs_held_out(data):
        learned, held_out = set_apart(data, place)
    configs = candidate_configs(learned, names, settings.mode, settings.settings, settings.seed)
    trained, failed = train_candidates(place, configs, context.say)
    choice = _choose(context, settings, trained, held_out)
    outputs = {"learned_sha256": data.fingerprint, "algorithm": choice.name, "failed": failed}
    return trained[choice.name].folder, outputs, f"{choice.name}: {choice.reason}"


def _choose(
    context: Context,
    settings: Offline,
    trained: Mapping[str, Trained],
    held_out: Dataset | None,
) -> Choice:
    """Compares the candidates as `rlcar offline` does: by laps or, without a simulator, by data."""
    if len(trained) == 1:
        return Choice(next(iter(trained)), "it is the only candidate")
    context.say("comparing the candidates")
    _, measures = measure(trained)
    if measures:
        return choose_by_measures(measures)
    estimates = None
    if held_out is not None:
        fitted = FittedQSettings(updates=settings.updates)
        estimates = estimate_candidates(held_out, trained, context.training, fitted)
    return choose_by_estimates(list(trained), estimates)


def _fine_tune(context: Context, settings: FineTune) -> tuple[Path, dict[str, Any], str]:
    """Returns the run that continues the training of the stable version."""
    version = context.registry.version(context.settings.alias)
    name = str(version.metadata["lineage"]["run"])
    own = context.run.folder.parent.glob(f"*/training/*/runs/{name}")
    places = [path for path in (Path(settings.runs) / name, *own) if path.is_dir()]
    if not places:
        raise UserError(
            f"version {version.number} holds only a policy, and its run {name}, which holds the "
            f"critics, is not below {settings.runs}: copy the run there, or name another folder "
            "with train.fineTune.runs"
        )
    config = continued_config(places[0], settings.settings, settings.seed)
    trained, _ = train_candidates(context.training, {config.algorithm: config}, context.say)
    folder = trained[config.algorithm].folder
    outputs = {"learned_sha256": config.data.fingerprint or None, "algorithm": config.algorithm}
    return folder, outputs, f"{config.algorithm} after version {version.number}"
