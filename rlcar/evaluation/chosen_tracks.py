"""The tracks that the options of a command choose: a named set, or files of the user's own."""

from pathlib import Path
from typing import NamedTuple

from rlcar.config.race import RaceConfig
from rlcar.errors import ConfigError, UserError
from rlcar.settings.explain import nearest
from rlcar.track import TRACK_SETS
from rlcar.track.own.fitting import Scale
from rlcar.track.own.reading import with_own_tracks


class ChosenTracks(NamedTuple):
    """The options `--tracks`, `--track-scale` and `--road-width`."""

    tracks: str | None = None  # a named set, or a CSV file, or a folder of such files
    scale: Scale = Scale()

    @classmethod
    def of(cls, tracks: "ChosenTracks | str | None") -> "ChosenTracks":
        """Returns the choice of a named set, or `tracks` itself."""
        return tracks if isinstance(tracks, ChosenTracks) else cls(tracks)

    def apply(self, race: RaceConfig, default: str) -> tuple[RaceConfig, str]:
        """Returns the race with these tracks, and the name of the set to drive.

        Without the option the race keeps its tracks, its own ones or drawn ones, and the set is
        `default`. A named set means drawn tracks. Raises ConfigError for an unknown name and for
        files that are no tracks.
        """
        self.refuse_without_files()
        if self.tracks is None:
            return race, default
        if self.tracks in TRACK_SETS:
            drawn = race.track.model_copy(update={"own": ()})
            return race.model_copy(update={"track": drawn}), self.tracks
        if not Path(self.tracks).exists():
            raise ConfigError(
                f"unknown track set {self.tracks!r}{nearest(self.tracks, list(TRACK_SETS))}; and "
                "there is no file or folder of this name"
            )
        return self.with_files(race), default

    def with_files(self, race: RaceConfig) -> RaceConfig:
        """Returns the race with the tracks of the files in place of its own."""
        assert self.tracks is not None
        path = Path(self.tracks)
        if not path.exists():
            raise ConfigError(
                f"--tracks {self.tracks}: there is no such file or folder: name a CSV file with a "
                "track, or a folder of such files"
            )
        track = with_own_tracks(race.track, path, self.scale)
        return race.model_copy(update={"track": track})

    def refuse_without_files(self) -> None:
        """Raises UserError if options say how to read files, and no file is named."""
        given = {
            "--track-scale": self.scale.px_per_unit,
            "--road-width": self.scale.road_width_px,
        }
        for option, value in given.items():
            if value is not None and (self.tracks is None or self.tracks in TRACK_SETS):
                raise UserError(
                    f"{option} {value:g} says how to read tracks from CSV files: name a file or a "
                    "folder with --tracks, or leave the option out"
                )
