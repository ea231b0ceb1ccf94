"""The named sets of tracks, as ranges of their seeds."""

from rlcar.config.race import TrackConfig
from rlcar.errors import ConfigError
from rlcar.settings.explain import nearest
from rlcar.track.circuits import CIRCUIT_SEEDS

# Seeds of the tracks. Training never uses the test tracks and the circuits.
TRACK_SETS = {
    "train": range(0, 10_000),
    "validation": range(10_000, 10_064),
    "test": range(20_000, 20_064),
    "circuits": range(min(CIRCUIT_SEEDS.values()), max(CIRCUIT_SEEDS.values()) + 1),
}
OWN_SET = "own"  # the name of own tracks in reports, whatever set was asked for


def set_seeds(track_set: str, config: TrackConfig) -> range:
    """Returns the seeds of a named set; raises ConfigError for an unknown name.

    With own tracks in the config every set consists of these tracks, each of them once. Only for
    training, and only where obstacles lie on the road, each of them is there many times, each time
    with other obstacles. The obstacles of the other sets are then unknown to a training.
    """
    if track_set not in TRACK_SETS:
        raise ConfigError(f"unknown track set {track_set!r}{nearest(track_set, list(TRACK_SETS))}")
    seeds = TRACK_SETS[track_set]
    if not config.own:
        return seeds
    varies = config.obstacle_placement == "road" and config.obstacles > 0
    if track_set == "train" and varies:
        return seeds
    # The first seed is a multiple of the number of tracks, so that they keep their order.
    first = -(-seeds[0] // len(config.own)) * len(config.own)
    return range(first, first + len(config.own))


def set_name(track_set: str, config: TrackConfig) -> str:
    """Returns the name of a set for reports: that of own tracks if there are any."""
    return OWN_SET if config.own else track_set
