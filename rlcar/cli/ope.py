"""`rlcar ope`: estimates from recorded episodes how good policies are."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlcar.cli.shared import MODELS, AsJson, Where, console, number, prepare_jax_on_cpu
from rlcar.errors import UserError, command

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
    registry: Where = MODELS,
    discount: Annotated[
        float, number(0.0, 0.9999, help="Discount of rewards per env step.")
    ] = 0.99,
    updates: Annotated[
        int, number(100, 10_000_000, help="Updates of the value functions of each policy.")
    ] = 10_000,
    transitions: Annotated[
        int, number(100, 10_000_000, help="Most recorded transitions to use, in whole episodes.")
    ] = 200_000,
    seed: Annotated[int, number(0, 2**31 - 1, help="Seed of all random numbers.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Estimates from recorded episodes whether policies are better than the one that drove.

    The verdict is unknown where the data cannot tell.
    """
    prepare_jax_on_cpu()
    from rlcar.datasets import Dataset
    from rlcar.evaluation.off_policy.fitted_q import FittedQSettings
    from rlcar.evaluation.off_policy.run import estimate, print_report

    dataset = Dataset.open(data)
    named = [_find(name, dataset, registry) for name in dict.fromkeys(policies)]
    settings = FittedQSettings(discount=discount, updates=updates)
    report = estimate(dataset, named, out, settings, most_transitions=transitions, seed=seed)
    if as_json:
        typer.echo((out / "ope.json").read_text(), nl=False)
        return
    print_report(report)
    console.print(f"written: {out}/ope.json, ope.png", highlight=False)


def _find(name: str, dataset: "Dataset", registry: str) -> "NamedPolicy":
    """Loads a policy by the folder of a run, the name of a driver, or a version."""
    from rlcar.config import parse_config
    from rlcar.evaluation.drivers import DRIVERS
    from rlcar.evaluation.off_policy import policies
    from rlcar.registry import Registry

    if Path(name).exists():
        return policies.policy_of_run(Path(name), dataset)
    if name in DRIVERS:
        return policies.policy_of_driver(name, dataset)
    opened = Registry(registry)
    if not opened.numbers():
        raise UserError(
            f"there is no run {name}, no driver of that name ({', '.join(DRIVERS)}), and "
            f"{opened.place} holds no published version: {command('ope', 'runs/NAME')} ..."
        )
    model = opened.open(name)
    metadata: dict[str, Any] = model.version.metadata
    config = parse_config(metadata["config"])
    return policies.policy_of_arrays(f"version {name}", config, model.arrays, dataset)
