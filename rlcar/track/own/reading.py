"""Reads own tracks from a CSV file or from a folder of such files."""

from pathlib import Path

from rlcar.config.own_track import MOST_OWN_TRACKS, OwnTrack
from rlcar.config.race import TrackConfig
from rlcar.errors import ConfigError
from rlcar.track.own.csv_file import read_csv
from rlcar.track.own.fitting import Scale, fit_line


def with_own_tracks(config: TrackConfig, path: Path, scale: Scale) -> TrackConfig:
    """Returns the settings with the tracks of a file or folder in place of all others.

    Raises ConfigError with file, line, value and what to do.
    """
    return TrackConfig.model_validate(
        config.model_dump() | {"own": [track.model_dump() for track in read(path, config, scale)]}
    )


def read(path: Path, config: TrackConfig, scale: Scale) -> list[OwnTrack]:
    """Reads the tracks of a file, or those of a folder in the order of their names."""
    return [fit_line(read_csv(file), config, scale) for file in _files(path)]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix.lower() == ".csv")
    if not files:
        raise ConfigError(
            f"the folder {path} holds no track: name a folder with files that end in .csv, or one "
            "such file"
        )
    if len(files) > MOST_OWN_TRACKS:
        raise ConfigError(
            f"the folder {path} holds {len(files):,} .csv files, and at most {MOST_OWN_TRACKS} "
            "tracks can be used at once: name a folder with fewer"
        )
    return files
