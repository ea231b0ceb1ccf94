"""`rlcar offline`: the best policy that can be learned from a data set."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from rlcar.cli.shared import (
    MODELS,
    Settings,
    Where,
    console,
    number,
    prepare_jax_on_cpu,
    say,
)
from rlcar.errors import command


def offline(
    folder: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of runs and report (default: offline/ and the data's name)."),
    ] = None,
    algorithm: Annotated[
        list[str] | None,
        typer.Option(help="Algorithm to try; repeatable (default: all that fit the data)."),
    ] = None,
    mode: Annotated[str, typer.Option(help="Size of each training: standard or test.")] = (
        "standard"
    ),
    set_: Settings = None,
    seed: Annotated[int, number(0, 2**31 - 1, help="Seed of all random numbers.")] = 0,
    updates: Annotated[
        int, number(100, 10_000_000, help="Updates of the value functions of each estimate.")
    ] = 16_000,
    publish: Annotated[
        bool, typer.Option("--publish/--no-publish", help="Publishes the best policy.")
    ] = True,
    registry: Where = MODELS,
) -> None:
    """Trains several algorithms on a data set, keeps the best policy and reports.

    The same command continues a selection that was stopped.
    """
    prepare_jax_on_cpu()
    from rlcar.datasets import Dataset
    from rlcar.evaluation.off_policy.fitted_q import FittedQSettings
    from rlcar.offline.candidates import StoppedError
    from rlcar.offline.data_settings import candidate_configs
    from rlcar.offline.held_out import needs_held_out, set_apart
    from rlcar.offline.run import select
    from rlcar.registry import Registry

    dataset = Dataset.open(folder)
    place = out or Path("offline") / folder.resolve().name
    learned, held_out = dataset, None
    if needs_held_out(dataset):
        learned, held_out = set_apart(dataset, place)
    configs = candidate_configs(learned, algorithm or [], mode, set_ or [], seed)
    models = Registry(registry) if publish else None
    try:
        fitted = FittedQSettings(updates=updates)
        result = select(dataset, held_out, configs, place, models, fitted, say)
    except StoppedError:
        again: list[object] = ["offline", folder, "--out", place, "--mode", mode, "--seed", seed]
        again += ["--updates", updates]
        again += [word for name in algorithm or [] for word in ("--algorithm", name)]
        again += [word for setting in set_ or [] for word in ("--set", setting)]
        again += ["--registry", registry] if publish else ["--no-publish"]
        say(f"stopped; continue with: {command(*again)}")
        sys.exit(130)
    console.print(f"kept {result['chosen']}: {result['reason']}", markup=False, highlight=False)
    if result["published"] is not None:
        console.print(f"published as version {result['published']}", highlight=False)
    console.print(f"report: {place}/report.md", markup=False, highlight=False)
