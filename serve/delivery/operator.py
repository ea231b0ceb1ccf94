"""Commands to a rollout, through the journal in the registry: by people, and by servers."""

import contextlib
import random
import time
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from rlcar.errors import MissingAliasError, RegistryError, RegistryUnavailableError
from rlcar.registry import Model, Registry
from rlcar.registry.aliases import ROLLED_BACK
from serve.delivery.counts import RolloutCounts, pooled
from serve.delivery.events import (
    Aborted,
    AliasMoved,
    AnyEvent,
    Entry,
    Paused,
    Promoting,
    Resumed,
    Retried,
    Started,
    Undone,
)
from serve.delivery.specification import RolloutSpecification
from serve.delivery.state import RolloutError, RolloutState, apply, fold

_ATTEMPTS = 20
_CANDIDATE = "candidate"

Decide = Callable[[RolloutState | None], AnyEvent]


class Snapshot(NamedTuple):
    """A journal at one moment."""

    entries: list[Entry]
    state: RolloutState | None

    @property
    def number(self) -> int:
        """The number of the last entry; 0 in an empty journal."""
        return self.entries[-1].number if self.entries else 0


class Operator:
    """Reads the rollouts of one alias, and changes them; all its methods block on the registry.

    Any number of operators may act at once: an event is written only directly after the state on
    which it was decided.
    """

    def __init__(self, registry: Registry, alias: str, actor: str):
        """`actor` is who stands in the journal: a person's account, a token or a server."""
        self.registry, self.alias = registry, alias
        self._actor = actor
        self._journal = registry.rollouts(alias)

    def acting_for(self, actor: str) -> "Operator":
        """Returns an operator that writes in another name."""
        return Operator(self.registry, self.alias, actor)

    def read(self) -> Snapshot:
        """Returns the journal and its state; raises RegistryError if it cannot be read."""
        entries = [
            Entry(one.number, one.time_s, one.actor, _decoded(one.content))
            for one in self._journal.read()
        ]
        return Snapshot(entries, fold(entries))

    def write(self, snapshot: Snapshot, event: AnyEvent) -> RolloutState | None:
        """Appends an event to a snapshot; returns the new state, or None if others were faster.

        Raises RolloutError, and writes nothing, if the state does not allow the event.
        """
        apply(snapshot.state, Entry(snapshot.number + 1, 0.0, self._actor, event))
        content = msgspec.to_builtins(event)
        written = self._journal.append(snapshot.number, self._actor, content)
        if written is None:
            return None
        return apply(snapshot.state, Entry(written.number, written.time_s, self._actor, event))

    def command(self, decide: Decide) -> RolloutState:
        """Writes the event that is decided from the newest state, however many others write."""
        for attempt in range(_ATTEMPTS):
            snapshot = self.read()
            state = self.write(snapshot, decide(snapshot.state))
            if state is not None:
                return state
            time.sleep(random.uniform(0.0, 0.05 * attempt))
        raise RegistryUnavailableError(
            f"the journal of {self.alias} in {self.registry.place} changed {_ATTEMPTS} times while "
            "this command was written: try again"
        )

    def start(
        self,
        name: str | int,
        specification: RolloutSpecification,
        trial: Callable[[Model], None],
        *,
        is_again: bool = False,
    ) -> RolloutState:
        """Begins a rollout of a version; `trial` raises RegistryError for an unfit model.

        A version that was rolled back before needs `is_again`.
        """
        candidate, stable = self.registry.resolve(name), self._stable()
        if candidate == stable:
            raise RolloutError(
                f"version {candidate} is {self.alias} already: start a rollout of another version"
            )
        snapshot = self.read()
        reason = rolled_back_versions(snapshot.entries).get(candidate)
        if reason is not None and not is_again:
            raise RolloutError(
                f"version {candidate} was rolled back before ({reason}): add --again to try it "
                "once more"
            )
        event = Started(new_id(), stable, candidate, specification.tree())
        apply(snapshot.state, Entry(snapshot.number + 1, 0.0, self._actor, event))
        self._require_same_schema(stable, candidate)
        trial(self.registry.open(candidate))
        state = self.command(lambda _: event)
        if snapshot.state is not None:
            self.registry.rollout_counts(self.alias, snapshot.state.rollout).clear()
        if self.alias == "champion":
            self.registry.promote(candidate, _CANDIDATE)
        return state

    def pause(self) -> RolloutState:
        """Holds the rollout at its step and its weight."""
        return self.command(lambda _: Paused())

    def resume(self) -> RolloutState:
        """Ends a pause, or goes on after an analysis without an answer."""
        return self.command(lambda _: Resumed())

    def abort(self, reason: str) -> RolloutState:
        """Gives all sessions back to the stable version."""
        return self.command(lambda _: Aborted(reason))

    def promote(self, reason: str) -> RolloutState:
        """Gives all sessions to the candidate, without the remaining steps."""
        self.command(lambda _: Promoting(reason))
        return self.finish()

    def retry(self) -> RolloutState:
        """Begins an aborted rollout again, if the alias is still where it was."""

        def decide(state: RolloutState | None) -> AnyEvent:
            if state is not None and state.stable != self._stable():
                raise RolloutError(
                    f"{self.alias} is no longer version {state.stable}: start a new rollout"
                )
            return Retried(new_id())

        return self.command(decide)

    def undo(self, reason: str) -> RolloutState:
        """Takes a promotion back: the alias returns to the version before."""

        def decide(state: RolloutState | None) -> AnyEvent:
            if state is not None and state.is_promoted and state.candidate != self._stable():
                raise RolloutError(
                    f"{self.alias} has moved since to version {self._stable()}: move it with "
                    "rlcar models promote"
                )
            return Undone(reason)

        self.command(decide)
        return self.finish()

    def finish(self) -> RolloutState:
        """Moves the alias as the journal says, unless that is done; the move may be repeated."""
        for _ in range(_ATTEMPTS):
            snapshot = self.read()
            state = snapshot.state
            if state is None:
                raise RolloutError("there has been no rollout yet")
            number = state.pending_alias
            if number is None:
                return state
            if self._stable() != number:
                is_back = number == state.stable
                why = ROLLED_BACK if is_back else f"promoted by rollout {state.rollout}"
                self.registry.promote(number, self.alias, why=why)
            moved = self.write(snapshot, AliasMoved(number))
            if moved is not None:
                return moved
        raise RegistryUnavailableError(f"the alias {self.alias} could not be moved: try again")

    def counts(self, state: RolloutState) -> RolloutCounts:
        """Returns what all servers have counted about a rollout."""
        shared = self.registry.rollout_counts(self.alias, state.rollout)
        return pooled(parsed_counts(shared.read()).values())

    def _stable(self) -> int:
        try:
            return self.registry.resolve(self.alias)
        except MissingAliasError:
            raise RolloutError(
                f"{self.registry.place} has no {self.alias} yet, with which a candidate is "
                f"compared: set it with rlcar models promote VERSION --alias {self.alias}"
            ) from None

    def _require_same_schema(self, stable: int, candidate: int) -> None:
        one, other = (self.registry.version(number).metadata for number in (stable, candidate))
        for kind in ("observation", "action"):
            if one[kind] != other[kind]:
                raise RolloutError(
                    f"version {candidate} has another {kind} ({len(other[kind])} numbers) than "
                    f"version {stable} ({len(one[kind])} numbers): sessions cannot move between "
                    "them, so serve it under an alias of its own"
                )


def new_id() -> str:
    """Returns the name of a new rollout."""
    return uuid.uuid4().hex[:12]


def rolled_back_versions(entries: list[Entry]) -> dict[int, str]:
    """Returns the versions that a rollout has marked as bad, with the reason.

    A later promotion removes the mark.
    """
    marked: dict[int, str] = {}
    state: RolloutState | None = None
    for entry in entries:
        state = apply(state, entry)
        event = entry.event
        if isinstance(event, Undone) or (isinstance(event, Aborted) and event.is_rollback):
            marked[state.candidate] = event.reason
        if isinstance(event, AliasMoved) and event.version == state.candidate:
            marked.pop(event.version, None)
    return marked


def parsed_counts(trees: dict[str, dict[str, Any]]) -> dict[str, RolloutCounts]:
    """Returns the counts of each server; those that do not fit this program are left out."""
    found = {}
    for server, tree in trees.items():
        with contextlib.suppress(msgspec.ValidationError):
            found[server] = msgspec.convert(tree, RolloutCounts)
    return found


def _decoded(content: dict[str, Any]) -> AnyEvent:
    try:
        event: AnyEvent = msgspec.convert(content, AnyEvent)
    except msgspec.ValidationError as error:
        raise RegistryError(
            f"the journal of rollouts has an entry that this rlcar cannot read: {error}"
        ) from None
    return event
