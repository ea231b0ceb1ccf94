"""A track of the user's own as a setting: its line is a part of the settings of a run."""

from pydantic import Field

from rlcar.settings.section import Section

MOST_OWN_TRACKS = 64
MOST_POINTS = 400  # of the centre line of a track
NARROWEST_HALF_WIDTH_PX, WIDEST_HALF_WIDTH_PX = 10.0, 60.0
# Three whole numbers for each point: x, y and half the width.
_POINT = r"-?\d{1,5},-?\d{1,5},\d{1,5}"


class OwnTrack(Section):
    """A closed road as `rlcar train --tracks` has read, scaled and resampled it.

    A run, its checkpoints and its versions hold their tracks as such settings. They therefore do
    not depend on the file, which may change or disappear.
    """

    name: str = Field(max_length=60, pattern=r"^[\w.()+-][\w .()+-]*$")
    """Name of the track: that of its file."""
    line: str = Field(max_length=20 * MOST_POINTS, pattern=rf"^{_POINT}(;{_POINT})*$")
    """Points of the middle of the road in driving order, from the start line on, separated by `;`.
    Each is `x,y,half_width`: x and y (up) in 1/32 px, and half the width of the road in 1/256
    px."""

    @property
    def points(self) -> int:
        """The number of points of the line."""
        return self.line.count(";") + 1
