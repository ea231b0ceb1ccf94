"""`rlcar ope`: estimates from recorded episodes how good policies are."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlcar.cli.shared import MODELS, AsJson, Where, console, number, prepare_jax_on_cpu
from rlcar.errors import UserError

if TYPE_CHECKING:
    from rlcar.datasets import Dataset
    from rlcar.evaluation.off_policy.policies import NamedPolicy

_POLICIES = "Run, checkpoint, published version (number or alias) or hand-written driver."


def ope(
    policies: Annotated[list[str], typer.Argument(help=_POLICIES)],
    data: Annotated[Path, typer.Option(help="Folder of the data set.")],
    out: Annotated[
        Path, typer.Option(help="Folder in which ope.json and ope.png are written.")
    ] = Path("ope"),
    baseline: Annotated[
        str | None,
        typer.Option(help="Policy to compare with (default: the one that drove)."),
    ] = None,
    registry: Where = MODELS,
    discount: Annotated[
        float, number(0.0, 0.9999, help="Discount of rewards per env step.")
    ] = 0.99,
    updates: Annotated[
        int, number(100, 10_000_000, help="Updates of the value functions of each policy.")
    ] = 16_000,
    transitions: Annotated[
        int,
        number(
            100, 10_000_000, help="Recorded transitions to use, about, in random whole episodes."
        ),
    ] = 200_000,
    seed: Annotated[int, number(0, 2**31 - 1, help="Seed of all random numbers.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Estimates from recorded episodes whether policies are better than the recorded ones.

    With --baseline the verdicts are relative to that policy. A verdict is unknown where the data
    cannot tell.
    """
    prepare_jax_on_cpu()
    from rlcar.datasets import Dataset
    from rlcar.evaluation.off_policy.fitted_q import FittedQSettings
    from rlcar.evaluation.off_policy.logged import require_numbers
    from rlcar.evaluation.off_policy.run import estimate, print_report, shown_progress, write_report

    dataset = Dataset.open(data)
    require_numbers(dataset)
    named, compared = _find_all(policies, baseline, dataset, registry)
    out.mkdir(parents=True, exist_ok=True)  # before the estimates, which take minutes
    settings = FittedQSettings(discount=discount, updates=updates)
    with shown_progress() as on_policy:
        report = estimate(
            dataset,
            named,
            settings,
            baseline=compared,
            most_transitions=transitions,
            seed=seed,
            on_policy=on_policy,
        )
    write_report(out, report)
    if as_json:
        typer.echo((out / "ope.json").read_text(), nl=False)
        return
    print_report(report)
    console.print(f"written: {out}/ope.json, ope.png", highlight=False)


def _find_all(
    policies: list[str], baseline: str | None, dataset: "Dataset", registry: str
) -> "tuple[list[NamedPolicy], NamedPolicy | None]":
    """Loads the policies to evaluate, and the baseline; raises UserError if only that is named."""
    named = [_find(name, dataset, registry) for name in dict.fromkeys(policies) if name != baseline]
    if not named:
        raise UserError(f"{baseline} is the baseline: name another policy to compare with it")
    return named, None if baseline is None else _find(baseline, dataset, registry)


def _find(name: str, dataset: "Dataset", registry: str) -> "NamedPolicy":
    """Loads a run, a published version or a driver that acts on what the data set holds."""
    from rlcar.cli.behaviours import load_learned
    from rlcar.errors import DatasetError
    from rlcar.evaluation.drivers import DRIVERS
    from rlcar.evaluation.off_policy.policies import learned_policy, policy_of_driver

    learned = load_learned(name, registry)
    if learned is not None:
        return learned_policy(name, *learned, dataset)
    if name not in DRIVERS:
        raise DatasetError(
            f"{name} does not act on recorded observations alone: name a run, a version or one of "
            f"{', '.join(DRIVERS)}"
        )
    return policy_of_driver(name, dataset)
