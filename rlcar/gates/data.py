"""The gate of recorded traffic: off-policy evaluation with the stable version as the baseline."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlcar.datasets import Dataset
from rlcar.evaluation.json_file import write_json
from rlcar.evaluation.off_policy.fitted_q import FittedQSettings
from rlcar.evaluation.off_policy.logged import require_numbers
from rlcar.evaluation.off_policy.policies import NamedPolicy, learned_policy
from rlcar.evaluation.off_policy.run import estimate, write_report
from rlcar.evaluation.off_policy.verdict import Verdict
from rlcar.gates.paired import GateResult
from rlcar.gates.settings import DataGate
from rlcar.gates.versions import require_different, version_name
from rlcar.registry import Model
from rlcar.registry.jax_policy import jax_policy
from rlcar.system import durable

RESULT = "off-policy-gate.json"


def data_gate(
    candidate: Model,
    stable: Model,
    dataset: Dataset,
    settings: DataGate,
    out: Path,
    *,
    say: Callable[[str], None] = lambda text: None,
) -> GateResult:
    """Estimates from recorded episodes whether the candidate is better than the stable version.

    A verdict that is `unknown` passes only with `allowUnknown`, and `worse` never does. Writes
    `ope.json` and `ope.png`, and last `off-policy-gate.json`, into the folder `out`. Raises
    UserError if the two are one version, and DatasetError if they do not act on such data.
    """
    require_different(candidate, stable)
    require_numbers(dataset)
    named = _named(candidate, dataset)
    say(f"estimating {named.name} from {dataset.episodes:,} episodes of {dataset.folder}")
    report = estimate(
        dataset,
        [named],
        FittedQSettings(discount=settings.discount, updates=settings.updates),
        baseline=_named(stable, dataset),
        most_transitions=settings.transitions,
        seed=settings.seed,
        on_policy=lambda name: say(f"evaluating {name}"),
    )
    found = report["policies"][named.name]
    warnings = [*report["warnings"], *found["warnings"]]
    if candidate.version.metadata["lineage"].get("data") == dataset.fingerprint:
        warnings.append("the candidate learned from these episodes, so its estimate is too high")
    verdict = found["verdict"]
    figures = {
        "verdict": verdict,
        "allow_unknown": settings.allow_unknown,
        "estimate": found["estimate"],
        "baseline_estimate": report["baseline"]["estimate"],
        "difference": found["difference"],
        "outside_support": found["outside_support"],
        "episodes": report["episodes"],
        "transitions": report["transitions"],
        "data": str(dataset.folder),
        "data_sha256": dataset.fingerprint,
        "warnings": warnings,
    }
    result = by_verdict(verdict, found["reason"], settings.allow_unknown, figures)
    with durable.explaining_write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        write_report(out, report)
        write_json(out / RESULT, result._asdict())
    return result


def by_verdict(
    verdict: Verdict, reason: str, allow_unknown: bool, figures: dict[str, Any]
) -> GateResult:
    """Decides from a verdict about the difference to the stable version."""
    is_allowed = verdict == "unknown" and allow_unknown
    allowed = ", which allowUnknown lets pass" if is_allowed else ""
    return GateResult(verdict == "better" or is_allowed, f"{verdict} ({reason}){allowed}", figures)


def _named(model: Model, dataset: Dataset) -> NamedPolicy:
    return learned_policy(version_name(model), *jax_policy(model), dataset)
