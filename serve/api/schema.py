"""Requests and answers of `/v1/act`: strict types, units and ranges; invalid input is refused."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType

from rlcar.errors import UserError
from serve.api.misspelt import with_nearest
from serve.api.outcomes import (
    MAX_CARS,
    EndField,
    ExecutedField,
    Outcome,
    RewardField,
    outcome_of,
    require_action_size,
)

LARGEST_REWARD = 1e9  # of a lap; sums of squares of larger numbers would lose the others
MAX_OBSERVATION = 4096  # numbers in one observation
SAFE_ACTION = (0.0, -1.0)  # of the race: steering straight ahead, full brake
_LARGEST = float(np.finfo(np.float32).max)  # a bound of numbers without one

Source = Literal["model", "hold", "fallback"]
SessionName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,64}\Z")]
# JSON has no integers of its own: 7.0 counts as one.
StepNumber = Annotated[float, Meta(ge=0, le=2**32 - 1, multiple_of=1)]
VersionNumber = Annotated[float, Meta(ge=0, le=2**31 - 1, multiple_of=1)]
Milliseconds = Annotated[float, Meta(ge=1.0, le=1000.0)]
Vector = Annotated[list[float], Meta(min_length=1, max_length=MAX_OBSERVATION)]


class RequestError(UserError):
    """A request that the policy cannot answer; `status` is the HTTP status."""

    def __init__(self, error: str, status: int = 422):
        super().__init__(error)
        self.status = status


class ActRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The observation of one car (`observation`), or those of up to 256 (`observations`).

    In a session the server remembers the earlier observations of the same cars. `step` counts the
    session's observations: a repeated request, whose step was counted already, gets the last
    action again. `model_version` is that of the last answer which the client received. The last
    four fields say what became of the last actions, for recordings.
    """

    observation: Vector | UnsetType = UNSET
    observations: Annotated[list[Vector], Meta(min_length=1, max_length=MAX_CARS)] | UnsetType = (
        UNSET
    )
    session: SessionName | UnsetType = UNSET
    is_first: bool | Annotated[list[bool], Meta(min_length=1, max_length=MAX_CARS)] = False
    step: StepNumber | UnsetType = UNSET
    deadline_ms: Milliseconds | UnsetType = UNSET
    model_version: VersionNumber | UnsetType = UNSET
    reward: RewardField = UNSET
    terminated: EndField = False
    truncated: EndField = False
    executed: ExecutedField = UNSET


class ActAnswer(msgspec.Struct, omit_defaults=True):
    """An action for each car, always; `source` says where it comes from.

    `model`: the policy's action for this observation. `hold`: the session's last action again.
    `fallback`: the safe action of the version. `age_ms` is the time since the observation behind
    the action arrived. `session_steps` counts the observations in the session's memory, this one
    included.
    """

    source: Source
    model_version: int | None
    age_ms: float
    action: list[float] | None = None
    actions: list[list[float]] | None = None
    session_steps: int | None = None
    error: str | None = None


class ObservationBatch(NamedTuple):
    """The observations of N cars at one step."""

    observation: np.ndarray  # [N, O] float32
    is_first: np.ndarray  # [N] bool


class CheckedRequest(NamedTuple):
    """A request that has passed every check."""

    batch: ObservationBatch
    is_single: bool  # one car, given as `observation`; the answer then has `action`, not `actions`
    session: str | None
    step: int | None
    deadline_ms: float | None
    model_version: int | None
    outcome: Outcome | None = None


class ModelInterface(NamedTuple):
    """The observations that a model accepts, and the actions that it answers with."""

    low: np.ndarray  # [O] float32
    high: np.ndarray  # [O] float32
    bounds: tuple[tuple[float, float], ...]  # the same as pairs, to check a single car quickly
    safe_action: tuple[float, ...]  # [A], where the policy does not act
    action_names: tuple[str, ...]  # [A]

    @property
    def action_size(self) -> int:
        """The number of an action's numbers."""
        return len(self.safe_action)


def make_interface(
    low: Sequence[float | None],
    high: Sequence[float | None],
    safe_action: Sequence[float],
    action_names: Sequence[str],
) -> ModelInterface:
    """Returns the interface for observations between `low` and `high` `[O]`; None is unbounded."""
    ends = np.array(
        [
            [-_LARGEST if bound is None else bound for bound in low],
            [_LARGEST if bound is None else bound for bound in high],
        ],
        np.float32,
    )
    return ModelInterface(
        ends[0],
        ends[1],
        tuple(zip(*ends.tolist(), strict=True)),
        tuple(safe_action),
        tuple(action_names),
    )


# Of the race, five rays and the speed; it also applies while a server has no model.
RACE_INTERFACE = make_interface([0.0] * 6, [1.0] * 6, SAFE_ACTION, ("steering", "throttle"))
_IS_FIRST_OF_ONE = {False: np.zeros(1, bool), True: np.ones(1, bool)}

_DECODER = msgspec.json.Decoder(ActRequest, strict=True)
_ENCODER = msgspec.json.Encoder()


def require_uncompressed(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raises RequestError for a compressed body, which could unfold to a thousand times its length.

    Header names are in lower case, as ASGI gives them.
    """
    for name, value in headers:
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            coding = value.decode("latin-1")[:40]
            raise RequestError(f"content-encoding {coding!r}: send the body as it is", 415)


def decode_act(body: bytes) -> ActRequest:
    """Parses a body; the RequestError of an invalid one names the field."""
    try:
        request = _DECODER.decode(body)
    except msgspec.ValidationError as error:
        raise RequestError(with_nearest(error, ActRequest)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"not JSON: {error}", 400) from error
    if (request.observation is UNSET) == (request.observations is UNSET):
        raise RequestError("give either `observation` or `observations`")
    return request


def encode(answer: ActAnswer | Mapping[str, str]) -> bytes:
    """Returns an answer as JSON."""
    return _ENCODER.encode(answer)


def check_request(request: ActRequest, interface: ModelInterface) -> CheckedRequest:
    """Returns the request with its arrays; raises RequestError for a wrong size or range."""
    is_single = request.observation is not UNSET
    rows: Any = [request.observation] if is_single else request.observations
    size = len(interface.bounds)
    for index, row in enumerate(rows):
        if len(row) != size:
            raise RequestError(
                f"observation {index} has {len(row)} numbers: this model takes {size}"
            )
    first = request.is_first
    if is_single and isinstance(first, bool):
        # The usual case, a single car, for which NumPy would take longer than the policy.
        for number, (low, high) in zip(rows[0], interface.bounds, strict=True):
            if not low <= number <= high:
                check_range(np.array(rows, np.float64), interface)
        batch = ObservationBatch(np.array(rows, np.float32), _IS_FIRST_OF_ONE[first])
    else:
        exact = np.array(rows, np.float64)
        check_range(exact, interface)
        is_first = np.full(len(rows), first) if isinstance(first, bool) else np.array(first)
        if len(is_first) != len(rows):
            raise RequestError(f"is_first has {len(is_first)} entries for {len(rows)} observations")
        batch = ObservationBatch(exact.astype(np.float32), is_first)
    return CheckedRequest(
        batch,
        is_single,
        request.session or None,
        None if isinstance(request.step, UnsetType) else int(request.step),
        request.deadline_ms or None,
        None if isinstance(request.model_version, UnsetType) else int(request.model_version),
        _outcome(request, batch.is_first, interface),
    )


def _outcome(
    request: ActRequest, is_first: np.ndarray, interface: ModelInterface
) -> Outcome | None:
    executed = request.executed
    try:
        require_action_size(executed, interface.action_size)
        return outcome_of(request.reward, request.terminated, request.truncated, executed, is_first)
    except ValueError as error:
        raise RequestError(str(error)) from None


def check_range(observation: np.ndarray, interface: ModelInterface) -> None:
    """Raises RequestError if a number of `[N, O]` is not finite or out of its range."""
    # A NaN is neither above nor below a bound, so this tests whether all numbers are inside.
    inside = (observation >= interface.low) & (observation <= interface.high)
    if not inside.all():
        row, column = np.argwhere(~inside)[0]
        raise RequestError(
            f"observation {row}, number {column} is {_digits(observation[row, column])}: outside "
            f"{_digits(interface.low[column])} to {_digits(interface.high[column])}"
        )


def _digits(number: np.floating[Any]) -> str:
    """Returns as few digits as identify the number: 1.0000001 must not be shown as 1."""
    short = f"{number:g}"
    return short if type(number)(short) == number else str(number)
