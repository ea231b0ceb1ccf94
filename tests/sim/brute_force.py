"""A reference of the sensors and the road in float64 that tests every edge: slow and simple."""

from typing import NamedTuple

import numpy as np

from rlcar.track import Track

RAY_ANGLES_DEG = np.array([-45.0, -22.5, 0.0, 22.5, 45.0])
RANGE_PX = 150.0


class Pose(NamedTuple):
    """N cars on one track in screen coordinates (y down), each field `[N]` float64."""

    x_px: np.ndarray
    y_px: np.ndarray
    heading_deg: np.ndarray


def ray_distances_px(track: Track, pose: Pose, is_with_obstacles: bool = False) -> np.ndarray:
    """Returns `[N, 5]` distances to the nearest edge (or circle) along each ray, at most 150."""
    angle = np.deg2rad(pose.heading_deg[:, None] + RAY_ANGLES_DEG)
    ray = np.stack([np.cos(angle), -np.sin(angle)], axis=-1)  # [N, R, 2]
    car = np.stack([pose.x_px, pose.y_px], axis=-1)[:, None]  # [N, 1, 2]
    nearest = np.full(angle.shape, RANGE_PX)
    for edge in (track.inner_px, track.outer_px):
        for start, along in zip(edge, np.roll(edge, -1, axis=0) - edge, strict=True):
            to_start = start - car
            denominator = _cross(ray, along)
            with np.errstate(divide="ignore", invalid="ignore"):
                distance = _cross(to_start, along) / denominator
                part = _cross(to_start, ray) / denominator
            is_hit = (part >= 0) & (part <= 1) & (distance >= 0)
            nearest = np.where(is_hit, np.minimum(nearest, distance), nearest)
    if is_with_obstacles:
        for centre in track.obstacles_px:
            to_centre = centre - car
            along_px = (to_centre * ray).sum(-1)
            inside = track.obstacle_radius_px**2 - _cross(to_centre, ray) ** 2
            distance = along_px - np.sqrt(np.maximum(inside, 0))
            is_hit = (inside >= 0) & (along_px > 0)
            nearest = np.where(is_hit, np.minimum(nearest, np.maximum(distance, 0)), nearest)
    return nearest


def distance_to_centre_line_px(track: Track, x_px: np.ndarray, y_px: np.ndarray) -> np.ndarray:
    """Returns `[N]` distances to the nearest of all centre segments, ends included."""
    point = np.stack([x_px, y_px], axis=-1)[:, None]
    along = np.roll(track.centre_px, -1, axis=0) - track.centre_px
    to_point = point - track.centre_px
    part = np.clip((to_point * along).sum(-1) / (along * along).sum(-1), 0, 1)
    return np.sqrt(((to_point - part[..., None] * along) ** 2).sum(-1)).min(axis=1)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
