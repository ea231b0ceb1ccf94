"""Vectors and quaternions of N bodies whose components are separate arrays `[N]`.

Separate components let XLA turn every operation into full vector instructions.
"""

from typing import NamedTuple

from rlcar.types import Array


class Vector(NamedTuple):
    """Three components, each `[N]`."""

    x: Array
    y: Array
    z: Array


class Quaternion(NamedTuple):
    """A unit quaternion that rotates vectors of the body into the world, each component `[N]`."""

    w: Array
    x: Array
    y: Array
    z: Array


def dot(a: Vector, b: Vector) -> Array:
    """Returns the scalar products `[N]`."""
    return a.x * b.x + a.y * b.y + a.z * b.z


def cross(a: Vector, b: Vector) -> Vector:
    """Returns the vector products."""
    return Vector(a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x)


def plus(a: Vector, b: Vector) -> Vector:
    """Returns the sums."""
    return Vector(a.x + b.x, a.y + b.y, a.z + b.z)


def minus(a: Vector, b: Vector) -> Vector:
    """Returns the differences."""
    return Vector(a.x - b.x, a.y - b.y, a.z - b.z)


def scaled(a: Vector, factor: Array) -> Vector:
    """Returns the vectors times a number each."""
    return Vector(a.x * factor, a.y * factor, a.z * factor)


def rotate(q: Quaternion, v: Vector) -> Vector:
    """Rotates vectors of the body into the world: v + 2 w (u x v) + 2 u x (u x v), q = (w, u)."""
    u = Vector(q.x, q.y, q.z)
    twice = scaled(cross(u, v), 2.0)
    return plus(plus(v, scaled(twice, q.w)), cross(u, twice))


def rotate_back(q: Quaternion, v: Vector) -> Vector:
    """Rotates vectors of the world into the body."""
    return rotate(Quaternion(q.w, -q.x, -q.y, -q.z), v)


def up_axis(q: Quaternion) -> Vector:
    """Returns the body's z axis in the world: the third column of the rotation matrix."""
    return Vector(
        2.0 * (q.x * q.z + q.w * q.y),
        2.0 * (q.y * q.z - q.w * q.x),
        1.0 - 2.0 * (q.x * q.x + q.y * q.y),
    )
