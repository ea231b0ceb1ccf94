"""The message about the road that the live page draws."""

from rlcar.track import make_track
from rlcar.types import Array
from serve.live.car import Car


def report_track(car: Car, seeds: range) -> dict[str, object]:
    """Describes the road of a car, in px; sent once for each track."""
    config = car.course.config
    track = make_track(car.track_seed, config.track)

    def line(points: Array) -> list[list[float]]:
        return [[round(float(x), 2), round(float(y), 2)] for x, y in points]

    return {
        "seed": track.seed,
        "name": track.name or str(track.seed),
        "first_seed": seeds[0],
        "last_seed": seeds[-1],
        "inner_px": line(track.inner_px),
        "outer_px": line(track.outer_px),
        "centre_px": line(track.centre_px),
        "obstacles_px": line(track.obstacles_px),
        "obstacles_are_solid": config.track.obstacle_placement == "road",
        "obstacle_radius_px": track.obstacle_radius_px,
        "top_speed_px_per_step": config.vehicle.top_speed_px_per_step,
    }
