"""Laps that cars report with `POST /v1/outcome`, one or several in a request."""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from serve.api.misspelt import with_nearest
from serve.api.outcomes import MAX_CARS
from serve.api.schema import LARGEST_REWARD, RequestError

MAX_LAPS = 256  # in one request

_Session = Annotated[str, Meta(min_length=1, max_length=64)]
# JSON has no integers of its own: 7.0 counts as one.
_Car = Annotated[float, Meta(ge=0, le=MAX_CARS - 1, multiple_of=1)]


class LapOutcome(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """How a session's lap or episode went: its total reward, whether it was a success, or both.

    With `human`, a person drove, so the lap says nothing about the version. `car` is the index of
    the car in a session of several; without it the lap counts as one of all cars.
    """

    session: _Session
    reward: float | None = None
    success: bool | None = None
    human: bool = False
    car: _Car | None = None


class LapResult(msgspec.Struct, omit_defaults=True):
    """What became of a reported lap.

    `counted`: it is a KPI of the rollout. `ignored`: it is sound, but says nothing about one of the
    two versions. `refused`: the session or the car is not known. The last two come with a reason.
    """

    status: Literal["counted", "ignored", "refused"]
    reason: str = ""


class LapResults(msgspec.Struct):
    """The answer to a list of laps, in their order."""

    laps: list[LapResult]


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    """A body: the fields of one lap, or a list of laps."""

    session: _Session | UnsetType = UNSET
    reward: float | UnsetType | None = UNSET
    success: bool | UnsetType | None = UNSET
    human: bool | UnsetType = UNSET
    car: _Car | UnsetType | None = UNSET
    laps: Annotated[list[LapOutcome], Meta(min_length=1, max_length=MAX_LAPS)] | UnsetType = UNSET


_DECODER = msgspec.json.Decoder(_Body, strict=True)


def decode_laps(body: bytes) -> tuple[list[LapOutcome], bool]:
    """Parses a body; returns its laps, and whether they came as a list.

    An invalid lap refuses the whole request, so that none is counted twice when a corrected one is
    sent: the RequestError names the field, and in a list the index.
    """
    try:
        content = _DECODER.decode(body)
    except msgspec.ValidationError as error:
        raise RequestError(with_nearest(error, _Body)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"not JSON: {error}", 400) from error
    if isinstance(content.laps, UnsetType):
        lap = _single(content)
        _check(lap, "")
        return [lap], False
    for name in ("session", "reward", "success", "human", "car"):
        if getattr(content, name) is not UNSET:
            raise RequestError(f"`{name}` stands beside `laps`: give it with each lap")
    for index, lap in enumerate(content.laps):
        _check(lap, f"laps[{index}]: ")
    return content.laps, True


def _single(content: _Body) -> LapOutcome:
    if isinstance(content.session, UnsetType):
        raise RequestError("give the `session` of a lap, or a list of `laps`")
    return LapOutcome(
        content.session,
        None if isinstance(content.reward, UnsetType) else content.reward,
        None if isinstance(content.success, UnsetType) else content.success,
        content.human is True,
        None if isinstance(content.car, UnsetType) else content.car,
    )


def _check(lap: LapOutcome, where: str) -> None:
    if lap.reward is not None and not abs(lap.reward) <= LARGEST_REWARD:
        raise RequestError(
            f"{where}the reward is {lap.reward:g}: it must be from {-LARGEST_REWARD:g} to "
            f"{LARGEST_REWARD:g}"
        )
    if lap.reward is None and lap.success is None:
        raise RequestError(f"{where}give `reward`, `success` or both")
