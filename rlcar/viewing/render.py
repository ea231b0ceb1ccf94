"""Renders a lap as a film, with further policies as ghost cars, or many tracks on one sheet."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from rlcar.config.race import RaceConfig
from rlcar.errors import UserError
from rlcar.sim.renderer import FRAMES_PER_S, Car, Renderer, Scene, contact_sheet, scene_of
from rlcar.system.durable import explaining_write_errors, replacing
from rlcar.track import make_track, make_tracks
from rlcar.viewing.car_policy import CarPolicy, Moment, drive_episode

FORMATS = (".gif", ".mp4", ".png")
_GIF_EVERY = 2  # a GIF shows every other step: half the bytes
_GIF_SIZE_PX = (480, 360)


def render_lap(
    out: Path, policies: Sequence[CarPolicy], race_config: RaceConfig, track_seed: int
) -> str:
    """Drives one track with each policy and writes a film, or its last frame; returns the results.

    The first policy's car is red and shows its rays; the others are ghosts. Raises UserError for a
    format that is not one of `FORMATS`, or that needs a package that is not installed.
    """
    require_format(out)
    drives = [list(drive_episode(policy, race_config, track_seed)) for policy in policies]
    track = make_track(track_seed, race_config.track)
    renderer = Renderer(track)

    def frames() -> Iterator[np.ndarray]:
        for step in range(max(map(len, drives))):
            yield renderer.rgb_array(_scene(drives, policies, race_config, step))

    write_film(out, frames())
    return "; ".join(_result(policy, drive) for policy, drive in zip(policies, drives, strict=True))


def write_film(out: Path, frames: Iterator[np.ndarray]) -> None:
    """Writes pictures `[height, width, 3]` uint8 as a film, or the last one as PNG.

    Raises UserError for a format that is not one of `FORMATS`.
    """
    suffix = require_format(out)
    if suffix == ".png":
        *_, last = frames
        _replace(out, lambda path: Image.fromarray(last).save(path, "png"))
    elif suffix == ".gif":
        _replace(out, lambda path: _write_gif(path, frames))
    else:
        _replace(out, lambda path: _write_mp4(path, frames))


def render_tracks(out: Path, race_config: RaceConfig, seeds: Sequence[int], columns: int) -> None:
    """Writes a contact sheet of tracks as PNG."""
    if out.suffix != ".png":
        raise UserError(f"a sheet of tracks is a picture: --out {out} must end in .png")
    sheet = contact_sheet(make_tracks(seeds, race_config.track), columns)
    _replace(out, lambda path: Image.fromarray(sheet).save(path, "png"))


def require_format(out: Path) -> str:
    """Returns the suffix of a file; raises UserError for one that is not in `FORMATS`."""
    if out.suffix not in FORMATS:
        raise UserError(f"--out {out}: the name must end in one of {', '.join(FORMATS)}")
    return out.suffix


def _scene(
    drives: Sequence[Sequence[Moment]],
    policies: Sequence[CarPolicy],
    race_config: RaceConfig,
    step: int,
) -> Scene:
    moments = [drive[min(step, len(drive) - 1)] for drive in drives]
    first = moments[0]
    ghosts = [
        Car(float(view.x_px[0]), float(view.y_px[0]), float(view.heading_deg[0]))
        for view in (moment.view for moment in moments[1:])
    ]
    return scene_of(
        first.time_step.observation,
        first.view,
        race_config,
        ghosts=ghosts,
        mode=policies[0].name,
        latent=first.latent,
    )


def _result(policy: CarPolicy, drive: Sequence[Moment]) -> str:
    last = drive[-1]
    if last.lap_time_steps:
        return f"{policy.name}: a lap in {last.lap_time_steps} steps"
    what = "a crash" if last.is_crash else "time is up"
    return f"{policy.name}: {what} at {100 * float(last.view.progress[0]):.0f} % of the lap"


def _write_gif(path: Path, frames: Iterator[np.ndarray]) -> None:
    pictures = [
        Image.fromarray(frame).resize(_GIF_SIZE_PX).quantize(64)
        for index, frame in enumerate(frames)
        if index % _GIF_EVERY == 0
    ]
    pictures[0].save(
        path,
        "gif",
        save_all=True,
        append_images=pictures[1:],
        duration=1000 * _GIF_EVERY // FRAMES_PER_S,
        loop=0,
    )


def _write_mp4(path: Path, frames: Iterator[np.ndarray]) -> None:
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise UserError(
            "an mp4 needs ffmpeg: pip install 'rlcar[video]', or write a .gif"
        ) from error
    first = next(frames)
    writer = imageio_ffmpeg.write_frames(
        str(path),
        (first.shape[1], first.shape[0]),
        fps=FRAMES_PER_S,
        output_params=["-f", "mp4"],
        macro_block_size=8,
    )
    with warnings.catch_warnings():
        # JAX warns of forks that go on computing; this one only executes ffmpeg.
        warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called")
        writer.send(None)
    writer.send(np.ascontiguousarray(first))
    for frame in frames:
        writer.send(np.ascontiguousarray(frame))
    writer.close()


def _replace(out: Path, write: Callable[[Path], None]) -> None:
    """Lets `write` fill a temporary file, then renames it to `out`."""
    with explaining_write_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as temporary:
            write(temporary)
