"""The lap-time bound agrees with closed forms and sums computed by hand."""

import math

import numpy as np
import pytest

from rlcar.config.race import TrackConfig
from rlcar.track import Track, make_track
from rlcar.track.bound import (
    CLASSIC_TOP_SPEED_PX_PER_STEP,
    fewest_steps,
    lap_time_bound_steps,
    shortest_lap_px,
)


def circle(radius_px: float, half_width_px: float, points: int) -> Track:
    """A regular polygon with mitred edges."""
    angle = 2 * math.pi * np.arange(points) / points
    spoke = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    mitre_px = half_width_px / math.cos(math.pi / points)
    return Track(
        seed=0,
        centre_px=radius_px * spoke,
        inner_px=(radius_px - mitre_px) * spoke,
        outer_px=(radius_px + mitre_px) * spoke,
        obstacles_px=np.empty((0, 2)),
        obstacle_radius_px=10.0,
        half_width_px=half_width_px,
        length_px=2 * points * radius_px * math.sin(math.pi / points),
    )


def shortest_around_a_circle_px(radius_px: float, inner_radius_px: float, points: int) -> float:
    """From the start straight to an inner corner, then along the inner edges to the gate."""
    edge_px = 2 * inner_radius_px * math.sin(math.pi / points)
    ways_px = []
    for corner in range(1, points + 1):
        angle = 2 * math.pi * corner / points
        edge_faces_the_start = radius_px * math.cos(angle - math.pi / points) > (
            inner_radius_px * math.cos(math.pi / points)
        )
        if not edge_faces_the_start:
            break  # the straight line to this corner would cut the infield
        to_corner_px = math.dist(
            (radius_px, 0.0),
            (inner_radius_px * math.cos(angle), inner_radius_px * math.sin(angle)),
        )
        ways_px.append(to_corner_px + (points - corner) * edge_px)
    return min(ways_px)


def test_the_shortest_lap_of_a_circle_hugs_the_inner_edge():
    radius_px, half_width_px, points = 210.0, 40.0, 100
    inner_radius_px = radius_px - half_width_px / math.cos(math.pi / points)
    # A move of 5 px may stand over each inner corner by 2.5 tan(1.8 deg).
    overhang_px = 2.5 * math.tan(math.pi / points)
    exact_px = shortest_around_a_circle_px(radius_px, inner_radius_px, points)
    relaxed_px = shortest_around_a_circle_px(radius_px, inner_radius_px - overhang_px, points)
    found_px = shortest_lap_px(circle(radius_px, half_width_px, points))
    assert found_px <= exact_px
    assert found_px == pytest.approx(relaxed_px - 0.5, abs=0.15)  # 0.5 is the slack


def test_a_track_without_noise_is_bounded_like_a_circle():
    track = make_track(7, TrackConfig(noise_amplitude=0.0))
    drawn_px = shortest_lap_px(circle(210.0, 40.0, 100))
    assert shortest_lap_px(track) == pytest.approx(drawn_px, abs=0.5)


def test_a_road_of_almost_no_width_is_as_long_as_its_middle():
    track = circle(radius_px=500.0, half_width_px=1e-3, points=100)
    assert track.length_px - 1.5 < shortest_lap_px(track) < track.length_px


def test_the_shortest_lap_is_no_longer_than_lines_through_the_gates():
    track = make_track(10_000, TrackConfig())
    rng = np.random.default_rng(0)
    for share in (0.0, 0.5, 1.0, *rng.uniform(size=(20, len(track.centre_px), 1))):
        line_px = track.centre_px + share * (track.inner_px - track.centre_px)
        line_px = np.vstack([track.centre_px[:1], line_px[1:], line_px[:1]])
        hops_px = np.linalg.norm(np.diff(line_px, axis=0), axis=1)
        assert shortest_lap_px(track) < hops_px.sum()


def test_the_fewest_steps_are_those_of_full_throttle_from_rest():
    # Speeds 0.2, 0.398, 0.59402: together 0.2, 0.598, 1.19202.
    lengths_px = np.array([0.0, 0.1, 0.2, 0.21, 0.59, 0.6, 1.19, 1.2])
    np.testing.assert_array_equal(fewest_steps(lengths_px), [0, 1, 1, 2, 2, 3, 3, 4])


def test_at_top_speed_five_pixels_more_are_one_step_more():
    assert np.diff(
        fewest_steps(np.arange(1000.0, 1100.0, CLASSIC_TOP_SPEED_PX_PER_STEP))
    ).tolist() == ([1] * 19)


def test_a_wider_road_never_raises_the_bound():
    tracks = [circle(210.0, half_width_px, 100) for half_width_px in (18.0, 30.0, 40.0)]
    bound_steps = lap_time_bound_steps(tracks)
    assert bound_steps[0] > bound_steps[1] > bound_steps[2]
