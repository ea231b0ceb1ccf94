"""`rlcar evaluate`: drives fixed tracks with a run's best policy."""

from rlcar.cli.shared import RunOrCheckpoint, TracksOption, prepare_jax_on_cpu
from rlcar.system import terminal


def evaluate(run: RunOrCheckpoint, tracks: TracksOption = "test") -> None:
    """Drives unseen tracks with a run's best policy and writes report.json and pictures."""
    prepare_jax_on_cpu()
    from rlcar.evaluation.run_report import evaluate_run

    with terminal.outlived():
        evaluate_run(run, tracks)
