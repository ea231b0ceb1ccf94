"""The stages between training and publication: is the candidate better than the stable version?"""

from collections.abc import Mapping
from typing import Any

from cluster.pipeline.context import Context, Done
from cluster.pipeline.learning import unpublished
from rlcar.datasets import Dataset
from rlcar.gates.data import data_gate
from rlcar.gates.paired import GateResult
from rlcar.gates.simulation import simulation_gate


def simulate(context: Context, given: Mapping[str, Any]) -> Done:
    """Both versions drive the same tracks; the stable version is that of now."""
    stable = context.registry.resolve(context.settings.alias)
    settings = context.settings.gates.simulation
    outputs = {"stable": stable}
    if settings is None:
        return Done(outputs, "the pipeline has no such gate")
    candidate = unpublished(context, context.run.folder / given["trained_run"])
    out = context.run.folder / "gates"
    result = simulation_gate(
        candidate, context.registry.open(stable), settings, out, say=context.say
    )
    return _done(outputs, "simulation", result)


def estimate(context: Context, given: Mapping[str, Any]) -> Done:
    """Estimates both versions from recorded episodes that the candidate has not learned from."""
    settings = context.settings.gates.off_policy_evaluation
    if settings is None:
        return Done({}, "the pipeline has no such gate")
    run, registry = context.run, context.registry
    candidate = unpublished(context, run.folder / given["trained_run"])
    data = Dataset.open(settings.data or run.folder / given["held_out"])
    stable = registry.open(int(given["stable"]))
    result = data_gate(candidate, stable, data, settings, run.folder / "gates", say=context.say)
    return _done({}, "estimate", result)


def _done(outputs: dict[str, Any], name: str, result: GateResult) -> Done:
    """Returns the outcome of a gate; its other figures are in its own file."""
    outputs = {**outputs, f"{name}_passed": result.passed}
    return Done(outputs, result.reason, None if result.passed else "stopped at a gate")
