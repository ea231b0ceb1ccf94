"""`rlcar evaluate`: drives fixed tracks or episodes with a run's best policy."""

from typing import Annotated

from rlcar.cli.shared import RunOrCheckpoint, TracksOption, number, prepare_jax_on_cpu
from rlcar.system import terminal


def evaluate(
    run: RunOrCheckpoint,
    tracks: TracksOption = "test",
    episodes: Annotated[
        int | None,
        number(
            1,
            65_536,
            help="Number of unseen episodes in a compiled environment such as the lander "
            "(default: 256).",
        ),
    ] = None,
) -> None:
    """Drives unseen tracks or episodes with a run's best policy; writes report.json, pictures."""
    prepare_jax_on_cpu()
    from rlcar.evaluation.run_report import evaluate_run

    with terminal.outlived():
        evaluate_run(run, tracks, episodes=episodes)
