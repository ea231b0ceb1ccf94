"""What can happen to a rollout: the entries of its journal."""

from typing import Any, Literal

import msgspec

Result = Literal["success", "failure", "inconclusive", "error"]


class Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type"):
    """Something that happened to a rollout."""


class PassedGate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A gate that the candidate has passed before the rollout began."""

    gate: str  # its key in the rollout's file
    reason: str
    numbers: dict[str, float]


# Without gates, an entry is as servers of older versions of rlcar read it.
class Started(Event, tag="started", frozen=True, omit_defaults=True):
    """A rollout begins at its first step."""

    rollout: str
    stable: int
    candidate: int
    specification: dict[str, Any]
    gates: list[PassedGate] = []


class Retried(Event, tag="retried", frozen=True):
    """An aborted rollout begins again, under a new identity: other sessions go first."""

    rollout: str


class Advanced(Event, tag="advanced", frozen=True):
    """The step before `step` is done; after the last step, `step` is the number of steps."""

    step: int


class Measurement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One measurement of a metric; `value` is None if there were no data."""

    metric: str
    value: float | None
    result: Result


class Measured(Event, tag="measured", frozen=True):
    """Metrics of the present analysis were measured."""

    measurements: list[Measurement]


class Paused(Event, tag="paused", frozen=True):
    """A person holds the rollout."""


class Resumed(Event, tag="resumed", frozen=True):
    """A person lets the rollout go on."""


class Undecided(Event, tag="undecided", frozen=True):
    """An analysis gave no answer, so a person must decide."""

    reason: str


class Aborted(Event, tag="aborted", frozen=True):
    """All sessions return to the stable version, and a move of the alias that is due is dropped."""

    reason: str
    is_rollback: bool = False  # by a fault of the candidate, which marks its version
    numbers: dict[str, float] = {}


class Promoting(Event, tag="promoting", frozen=True):
    """The candidate drives all sessions, and the alias is about to move to it."""

    reason: str


class Completed(Event, tag="completed", frozen=True):
    """A rollout without promotion, which is a shadow, has ended well."""


class Undone(Event, tag="undone", frozen=True):
    """The promotion is taken back: the alias is about to move to the version before."""

    reason: str


class AliasMoved(Event, tag="alias-moved", frozen=True):
    """The alias points at the version that the event before asked for."""

    version: int


AnyEvent = (
    Started
    | Retried
    | Advanced
    | Measured
    | Paused
    | Resumed
    | Undecided
    | Aborted
    | Promoting
    | Completed
    | Undone
    | AliasMoved
)


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of the journal."""

    number: int
    time_s: float  # Unix time of the writer's clock
    actor: str  # who wrote it: a person's account or a server
    event: AnyEvent
