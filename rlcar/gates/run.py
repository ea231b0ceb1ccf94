"""Runs the gates that a file asks for."""

from collections.abc import Callable
from pathlib import Path

from rlcar.datasets import Dataset
from rlcar.gates.data import data_gate
from rlcar.gates.paired import GateResult
from rlcar.gates.settings import Gates
from rlcar.gates.simulation import simulation_gate
from rlcar.registry import Model

SIMULATION, OFF_POLICY = "simulation", "offPolicyEvaluation"


def run_gates(
    candidate: Model,
    stable: Model,
    gates: Gates,
    out: Path,
    *,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, GateResult]:
    """Returns the result of each gate by its key in the file; all of them run, whatever they find.

    Their figures are in the folder `out`. Raises UserError for versions or data that a gate cannot
    compare. A folder that is no data set is refused before the laps, which take minutes.
    """
    recorded = gates.off_policy_evaluation
    dataset = None if recorded is None else Dataset.open(Path(recorded.data))
    results = {}
    if gates.simulation is not None:
        results[SIMULATION] = simulation_gate(candidate, stable, gates.simulation, out, say=say)
    if recorded is not None and dataset is not None:
        results[OFF_POLICY] = data_gate(candidate, stable, dataset, recorded, out, say=say)
    return results
