"""The JSON that the live page sends: bodies of its HTTP commands, and messages of its WebSocket."""

from typing import Annotated

import msgspec

MAX_FILE_CHARACTERS = 200

Unit = Annotated[float, msgspec.Meta(ge=-1.0, le=1.0)]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
FileName = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_FILE_CHARACTERS)]


class ControlInput(msgspec.Struct):
    """`/control`: the driver's steering and throttle."""

    steering: Unit
    throttle: Unit


class TryRequest(msgspec.Struct):
    """`/try`: an observation for the policy."""

    observation: Annotated[list[Share], msgspec.Meta(min_length=1, max_length=64)]


class TrackRequest(msgspec.Struct):
    """`/track`: the seed of the track to go to; the next track without one."""

    seed: Annotated[int, msgspec.Meta(ge=0, lt=2**31)] | None = None


class GhostRequest(msgspec.Struct):
    """`/ghost`: the policy of the ghost; null removes the ghost."""

    file: FileName | None = None


class SaveRequest(msgspec.Struct):
    """`/save_model`: the description of the new version."""

    description: Annotated[str, msgspec.Meta(max_length=200)] = "saved on the live page"


class ControlMessage(msgspec.Struct, tag="control", forbid_unknown_fields=True):
    """WebSocket: the driver's steering and throttle."""

    steering: Unit
    throttle: Unit


class TakeMessage(msgspec.Struct, tag="take", forbid_unknown_fields=True):
    """WebSocket: asks for control."""


class LeaveMessage(msgspec.Struct, tag="leave", forbid_unknown_fields=True):
    """WebSocket: releases control."""
