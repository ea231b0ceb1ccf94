"""`rlcar profile`: where the time of a training or of the simulator goes."""

from pathlib import Path
from typing import Annotated

import typer

from rlcar.cli.shared import Settings, number
from rlcar.cli.train_options import Mode, Preset, World
from rlcar.devices import compile_cache
from rlcar.errors import UserError


def profile(
    what: Annotated[
        str, typer.Argument(help="Part to measure: train (the whole loop) or sim (driving alone).")
    ],
    preset: Preset = None,
    world: World = None,
    mode: Mode = "standard",
    set_: Settings = None,
    blocks: Annotated[int, number(1, 1000, help="Number of blocks to measure.")] = 2,
    out: Annotated[Path, typer.Option(help="Folder in which to write the trace.")] = Path(
        "profile"
    ),
) -> None:
    """Shows where the time goes, and writes a trace for Perfetto or TensorBoard."""
    compile_cache.prepare_jax()
    from rlcar.config import make_config
    from rlcar.devices.selection import everything_on_cpu
    from rlcar.training.profiler import print_profile, profile_sim, profile_train

    if what not in ("train", "sim"):
        raise UserError(f"cannot profile {what!r}: there are train and sim")
    config = make_config(preset, mode, overrides=set_ or [], world=world)
    run_profile = profile_train if what == "train" else profile_sim
    with everything_on_cpu():  # like `train --local`: only the learner uses an accelerator
        print_profile(run_profile(config, out, blocks))
