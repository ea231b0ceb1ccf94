"""Decides which sessions the candidate of a rollout drives: the same everywhere, for ever.

A session's place between 0 and 100 depends on its name and the rollout alone, so every replica and
every restart agrees. The candidate drives the sessions whose place is below the weight: a larger
weight moves sessions from the stable version to the candidate, and none the other way.
"""

import hashlib

_SIZE = 2.0**53


def place_of(rollout: str, session: str, purpose: str = "canary") -> float:
    """Returns a session's place, at least 0 and below 100, uniform over the sessions' names.

    `purpose` makes independent places, so that shadowed sessions are not the canary's first.
    """
    key = f"{purpose}\0{rollout}\0{session}".encode()
    digest = hashlib.blake2b(key, digest_size=8).digest()
    return 100.0 * ((int.from_bytes(digest, "big") >> 11) / _SIZE)


def is_canary(rollout: str, session: str, weight: float) -> bool:
    """Whether the candidate drives a session at this weight, a percentage."""
    return place_of(rollout, session) < weight


def is_shadowed(rollout: str, session: str, weight: float) -> bool:
    """Whether the candidate acts unseen for a session at this weight, a percentage."""
    return place_of(rollout, session, "shadow") < weight
