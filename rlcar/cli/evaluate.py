"""`rlcar evaluate`: drives fixed tracks or episodes with a run's best policy."""

from typing import Annotated

from rlcar.cli.shared import (
    RoadWidth,
    RunOrCheckpoint,
    TrackScale,
    TracksOption,
    chosen_tracks,
    number,
    prepare_jax_on_cpu,
)
from rlcar.system import terminal


def evaluate(
    run: RunOrCheckpoint,
    tracks: TracksOption = None,
    track_scale: TrackScale = None,
    road_width: RoadWidth = None,
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
    """Drives unseen tracks or episodes with a run's best policy; writes report.json, pictures.

    A run that trained on tracks of its own drives those.
    """
    prepare_jax_on_cpu()
    from rlcar.evaluation.run_report import evaluate_run

    with terminal.outlived():
        evaluate_run(run, chosen_tracks(tracks, track_scale, road_width), episodes=episodes)
