"""Requests and answers: strict types, units and ranges; what cannot be right is refused."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType

from rlcar.errors import UserError

MAX_CARS = 256
MAX_OBSERVATION = 4096

Source = Literal["model", "hold", "fallback"]
SessionName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,64}\Z")]
# JSON knows numbers alone: 7.0 is an integer.
StepNumber = Annotated[float, Meta(ge=0, le=2**32 - 1, multiple_of=1)]
VersionNumber = Annotated[float, Meta(ge=0, le=2**31 - 1, multiple_of=1)]
Milliseconds = Annotated[float, Meta(ge=1.0, le=1000.0)]
Vector = Annotated[list[float], Meta(min_length=1, max_length=MAX_OBSERVATION)]


class RequestError(UserError):
    """A request that cannot be answered by the policy; `status` is HTTP's."""

    def __init__(self, error: str, status: int = 422):
        super().__init__(error)
        self.status = status


class ActRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What one car saw (`observation`), or what up to 256 saw (`observations`).

    In a session the server remembers what the same cars saw before. `step` counts a session's
    observations: one that was counted already, a repeated request, gets the last action again.
    """

    observation: Vector | UnsetType = UNSET
    observations: Annotated[list[Vector], Meta(min_length=1, max_length=MAX_CARS)] | UnsetType = (
        UNSET
    )
    session: SessionName | UnsetType = UNSET
    is_first: bool | Annotated[list[bool], Meta(min_length=1, max_length=MAX_CARS)] = False
    step: StepNumber | UnsetType = UNSET
    deadline_ms: Milliseconds | UnsetType = UNSET
    model_version: VersionNumber | UnsetType = UNSET  # the last that was heard from us


class ActAnswer(msgspec.Struct, omit_defaults=True):
    """An action for each car, always; `source` says whose it is.

    `model`: the policy's, for this observation. `hold`: the session's last one again. `fallback`:
    brake, wheels straight. `age_ms`: since the observation behind the action came in.
    `session_steps`: observations that the session's memory holds, this one included.
    """

    source: Source
    model_version: int | None
    age_ms: float
    action: list[float] | None = None
    actions: list[list[float]] | None = None
    session_steps: int | None = None
    error: str | None = None


class ObservationBatch(NamedTuple):
    """What N cars saw."""

    observation: np.ndarray  # [N, O] float32
    is_first: np.ndarray  # [N] bool


class CheckedRequest(NamedTuple):
    """A request that has passed every check."""

    observed: ObservationBatch
    is_one: bool  # asked about one car, outside a list
    session: str | None
    step: int | None
    deadline_ms: float | None
    model_version: int | None


class ObservationRange(NamedTuple):
    """What a model's observations can be."""

    low: np.ndarray  # [O] float32
    high: np.ndarray
    bounds: tuple[tuple[float, float], ...]  # the same, for a single car without NumPy


def make_range(low: Sequence[float], high: Sequence[float]) -> ObservationRange:
    """Returns the range of observations between two of them."""
    ends = np.array([low, high], np.float32)
    return ObservationRange(ends[0], ends[1], tuple(zip(*ends.tolist(), strict=True)))


# Of the race: five rays and the speed. Every model that can be served is of the race.
RACE_RANGE = make_range([0.0] * 6, [1.0] * 6)
_ONE = {False: np.zeros(1, bool), True: np.ones(1, bool)}


_DECODER = msgspec.json.Decoder(ActRequest, strict=True)
_ENCODER = msgspec.json.Encoder()


def require_uncompressed(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raises RequestError for a compressed body: it could hold a thousand times its length.

    Names are in lower case, as ASGI has them.
    """
    for name, value in headers:
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            coding = value.decode("latin-1")[:40]
            raise RequestError(f"content-encoding {coding!r}: send the body as it is", 415)


def decode_act(body: bytes) -> ActRequest:
    """Parses a body; raises RequestError with what is wrong where."""
    try:
        request = _DECODER.decode(body)
    except msgspec.ValidationError as error:
        raise RequestError(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"not JSON: {error}", 400) from error
    if (request.observation is UNSET) == (request.observations is UNSET):
        raise RequestError("give either `observation` or `observations`")
    return request


def encode(answer: Any) -> bytes:
    """JSON of an answer."""
    return _ENCODER.encode(answer)


def checked(request: ActRequest, allowed: ObservationRange) -> CheckedRequest:
    """Returns the request with its arrays; raises RequestError for a wrong size or range."""
    is_one = request.observation is not UNSET
    rows: Any = [request.observation] if is_one else request.observations
    size = len(allowed.bounds)
    for index, row in enumerate(rows):
        if len(row) != size:
            raise RequestError(
                f"observation {index} has {len(row)} numbers: this model takes {size}"
            )
    first = request.is_first
    if is_one and isinstance(first, bool):
        # A single car, the usual case: NumPy would take longer than the policy.
        for number, (low, high) in zip(rows[0], allowed.bounds, strict=True):
            if not low <= number <= high:
                check_range(np.array(rows, np.float64), allowed)
        observed = ObservationBatch(np.array(rows, np.float32), _ONE[first])
    else:
        exact = np.array(rows, np.float64)
        check_range(exact, allowed)
        is_first = np.full(len(rows), first) if isinstance(first, bool) else np.array(first)
        if len(is_first) != len(rows):
            raise RequestError(f"is_first has {len(is_first)} entries for {len(rows)} observations")
        observed = ObservationBatch(exact.astype(np.float32), is_first)
    return CheckedRequest(
        observed,
        is_one,
        request.session or None,
        None if isinstance(request.step, UnsetType) else int(request.step),
        request.deadline_ms or None,
        None if isinstance(request.model_version, UnsetType) else int(request.model_version),
    )


def check_range(observation: np.ndarray, allowed: ObservationRange) -> None:
    """Raises RequestError where `[N, O]` is not finite or out of its range."""
    # A NaN is neither above nor below, so the question is whether all are inside.
    inside = (observation >= allowed.low) & (observation <= allowed.high)
    if not inside.all():
        row, column = np.argwhere(~inside)[0]
        raise RequestError(
            f"observation {row}, number {column} is {_shown(observation[row, column])}: outside "
            f"{_shown(allowed.low[column])} to {_shown(allowed.high[column])}"
        )


def _shown(number: np.floating[Any]) -> str:
    """As few digits as tell a number from its neighbours: 1.0000001 must not be shown as 1."""
    short = f"{number:g}"
    return short if type(number)(short) == number else str(number)
