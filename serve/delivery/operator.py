"""Commands to a rollout, through the journal in the registry: by people, and by servers."""

import contextlib
import logging
import random
import time
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from rlcar.config.schema import is_same_schema
from rlcar.errors import (
    ConfigError,
    MissingAliasError,
    RegistryError,
    RegistryUnavailableError,
)
from rlcar.registry import Model, Registry
from rlcar.registry.aliases import ROLLED_BACK
from rlcar.registry.journal import Journal, JournalEntry
from serve.delivery.counts import RolloutCounts, pooled
from serve.delivery.events import (
    Aborted,
    AliasMoved,
    AnyEvent,
    Entry,
    PassedGate,
    Paused,
    Promoting,
    Resumed,
    Retried,
    Started,
    Undone,
)
from serve.delivery.specification import RolloutSpecification
from serve.delivery.state import RolloutError, RolloutState, apply, extend, fold, refuse_marked

_LOGGER = logging.getLogger(__name__)
_ATTEMPTS = 20
_CANDIDATE = "candidate"

# (candidate, stable) -> the gates that were passed; raises what refuses the others.
PassGates = Callable[[Model, Model], list[PassedGate]]


class Snapshot(NamedTuple):
    """A journal at one moment."""

    entries: list[Entry]
    state: RolloutState | None

    @property
    def number(self) -> int:
        """The number of the last entry; 0 in an empty journal."""
        return self.entries[-1].number if self.entries else 0


# Returns the event to write after a snapshot; raises RolloutError if there is none.
Decide = Callable[[Snapshot], AnyEvent]


class Operator:
    """Reads the rollouts of one alias, and changes them; all its methods block on the registry.

    Any number of operators may act at once: an event is written only directly after the state on
    which it was decided.
    """

    def __init__(self, registry: Registry, alias: str, actor: str, journal: Journal | None = None):
        """`actor` (a person, a token or a server) is recorded as the author of the entries."""
        self.registry, self.alias = registry, alias
        self._actor = actor
        self._journal = registry.rollouts(alias) if journal is None else journal
        # What the last `read` found, as servers read some times a second and little is new.
        self._last: tuple[list[JournalEntry], Snapshot] = ([], Snapshot([], None))

    def acting_for(self, actor: str) -> "Operator":
        """Returns an operator that writes on behalf of another actor."""
        return Operator(self.registry, self.alias, actor, self._journal)

    def read(self) -> Snapshot:
        """Returns the journal and its state; raises RegistryError if it cannot be read."""
        known, snapshot = self._last
        found = self._journal.read()
        if found != known:
            if found[: len(known)] != known:  # a late entry was skipped, or files were restored
                known, snapshot = [], Snapshot([], None)
            new = [
                Entry(one.number, one.time_s, one.actor, _decoded(one.content))
                for one in found[len(known) :]
            ]
            snapshot = Snapshot([*snapshot.entries, *new], fold(new, snapshot.state))
            self._last = found, snapshot
        return snapshot

    def write(self, snapshot: Snapshot, event: AnyEvent) -> RolloutState | None:
        """Appends an event to a snapshot; returns the new state, or None if others were faster.

        Raises RolloutError, and writes nothing, if the state does not allow the event.
        """
        extend(snapshot.state, Entry(snapshot.number + 1, 0.0, self._actor, event))
        content = msgspec.to_builtins(event)
        written = self._journal.append(snapshot.number, self._actor, content)
        if written is None:
            return None
        return apply(snapshot.state, Entry(written.number, written.time_s, self._actor, event))

    def claim_notice(self, number: int) -> bool:
        """Returns True to the one server that is to announce an entry."""
        return self._journal.claim_notice(number)

    def command(self, decide: Decide) -> RolloutState:
        """Writes the event that is decided from the newest snapshot, however many others write."""
        for attempt in range(_ATTEMPTS):
            snapshot = self.read()
            state = self.write(snapshot, decide(snapshot))
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
        rollout: str | None = None,
        pass_gates: PassGates | None = None,
    ) -> RolloutState:
        """Begins a rollout of a version; `trial` raises RegistryError for an unfit model.

        A version that was rolled back before needs `is_again`. `rollout` names the new rollout, and
        its name determines which sessions move first; without one it is random. `pass_gates`
        runs the gates of a specification that has some, which may take minutes; ConfigError without
        it. If the alias `candidate` cannot be moved, the log says so and the rollout goes on.
        """
        candidate, stable = self.registry.resolve(name), self._stable()
        event = Started(rollout or new_id(), stable, candidate, specification.tree())
        before = self.read()
        self._require_startable(before, event, is_again)
        self._require_same_schema(stable, candidate)
        model = self.registry.open(candidate)
        trial(model)
        if specification.gates is not None:
            event = self._with_gates(event, model, pass_gates)

        def decide(snapshot: Snapshot) -> AnyEvent:  # again, as much may happen during the gates
            self._require_startable(snapshot, event, is_again)
            return event

        state = self.command(decide)
        if before.state is not None:
            self.registry.rollout_counts(self.alias, before.state.rollout).clear()
        if self.alias == "champion":
            try:
                self.registry.promote(candidate, _CANDIDATE)
            except RegistryError as error:  # no server needs the alias
                _LOGGER.warning(
                    "rollout %s has begun, but the alias %s could not be moved to version %d: %s",
                    *(state.rollout, _CANDIDATE, candidate, error),
                )
        return state

    def _require_startable(self, snapshot: Snapshot, event: Started, is_again: bool) -> None:
        """Raises RolloutError unless the rollout may begin directly after a snapshot."""
        candidate, stable = event.candidate, self._stable()
        if candidate == stable:
            raise RolloutError(
                f"version {candidate} is {self.alias} already: start a rollout of another version"
            )
        if stable != event.stable:
            raise RolloutError(
                f"{self.alias} moved to version {stable} while version {candidate} was compared "
                f"with version {event.stable}: start the rollout again"
            )
        if not is_again:
            refuse_marked(snapshot.entries, candidate)
        extend(snapshot.state, Entry(snapshot.number + 1, 0.0, self._actor, event))

    def _with_gates(self, event: Started, model: Model, pass_gates: PassGates | None) -> Started:
        """Returns the event with the gates that the candidate has passed."""
        if pass_gates is None:
            raise ConfigError(
                "the rollout has gates, and a server does not simulate: begin it with rlcar "
                "rollout start VERSION FILE, which does"
            )
        passed = pass_gates(model, self.registry.open(event.stable))
        return msgspec.structs.replace(event, gates=passed)

    def pause(self) -> RolloutState:
        """Holds the rollout at its step and its weight."""
        return self.command(lambda _: Paused())

    def resume(self) -> RolloutState:
        """Ends a pause, or goes on after an analysis without an answer."""
        return self.command(lambda _: Resumed())

    def abort(self, reason: str) -> RolloutState:
        """Gives all sessions back to the stable version; drops a move of the alias that is due."""
        state = self.command(lambda _: Aborted(reason))
        self.repair(state)
        return state

    def promote(self, reason: str) -> RolloutState:
        """Gives all sessions to the candidate, without the remaining steps."""

        def decide(snapshot: Snapshot) -> AnyEvent:
            state = snapshot.state
            if state is not None and state.is_running:
                self._require_usable(state.candidate)
            return Promoting(reason)

        self.command(decide)
        return self.finish()

    def retry(self, *, is_again: bool = False) -> RolloutState:
        """Begins an aborted rollout again, if the alias is still where it was.

        A version that was rolled back needs `is_again`.
        """

        def decide(snapshot: Snapshot) -> AnyEvent:
            state = snapshot.state
            if state is not None and not is_again:
                refuse_marked(snapshot.entries, state.candidate)
            if state is not None and state.stable != self._stable():
                raise RolloutError(
                    f"{self.alias} is no longer version {state.stable}: start a new rollout"
                )
            return Retried(new_id())

        return self.command(decide)

    def undo(self, reason: str) -> RolloutState:
        """Takes a promotion back: the alias returns to the version before."""

        def decide(snapshot: Snapshot) -> AnyEvent:
            state = snapshot.state
            if state is not None and state.is_promoted and state.candidate != self._stable():
                raise RolloutError(
                    f"{self.alias} has moved since to version {self._stable()}: move it with "
                    "rlcar models promote"
                )
            if state is not None and state.is_promoted and state.is_over:
                self._require_usable(state.stable)
            return Undone(reason)

        self.command(decide)
        return self.finish()

    def finish(self) -> RolloutState:
        """Moves the alias as the journal says, unless that is done; the move may be repeated.

        A move that cannot succeed is dropped: the state that is returned says why.
        """
        for _ in range(_ATTEMPTS):
            snapshot = self.read()
            state = snapshot.state
            if state is None:
                raise RolloutError("there has been no rollout yet")
            number = state.pending_alias
            if number is None:
                return state
            problem = self._obstacle(state, number)
            if problem is not None:
                self.write(snapshot, Aborted(problem))
                continue
            if self._stable() != number and not self._move(snapshot, number):
                continue
            moved = self.write(snapshot, AliasMoved(number))
            if moved is not None:
                return moved
            later = self.read().state
            if later is not None and later.rollout == state.rollout:
                self.repair(later)
        raise RegistryUnavailableError(f"the alias {self.alias} could not be moved: try again")

    def _obstacle(self, state: RolloutState, number: int) -> str | None:
        """Returns why the alias will never move to a version; None if it can."""
        current = self._stable()
        if current not in (state.stable, state.candidate):
            return f"{self.alias} moved to version {current} meanwhile"
        if current == number:
            return None
        try:
            self._require_usable(number)
        except RegistryUnavailableError:
            raise
        except RolloutError as error:
            return str(error)
        return None

    def _move(self, snapshot: Snapshot, number: int) -> bool:
        """Moves the alias, unless the journal has gone on since the snapshot."""

        def require_unchanged(_: Model) -> None:  # directly before the move, after the long reading
            if self.read().number != snapshot.number:
                raise _ChangedError

        state = snapshot.state
        assert state is not None
        is_back = number == state.stable
        why = ROLLED_BACK if is_back else f"promoted by rollout {state.rollout}"
        try:
            self.registry.promote(number, self.alias, require_unchanged, why)
        except _ChangedError:
            return False
        return True

    def repair(self, state: RolloutState) -> None:
        """Moves the alias to where a rollout that is over has left it.

        Another server may have moved it for an entry that is no longer the last one.
        """
        if not state.is_over:
            return
        is_taken = state.is_promoted and state.phase == "Healthy"
        due, other = state.stable, state.candidate
        if is_taken:
            due, other = other, due
        if self._stable() == other:
            why = f"promoted by rollout {state.rollout}" if is_taken else ROLLED_BACK
            self.registry.promote(due, self.alias, why=why)

    def _require_usable(self, number: int) -> None:
        """Raises RolloutError unless a version can be opened, so that the alias can move to it."""
        try:
            self.registry.open(number)
        except RegistryUnavailableError:
            raise
        except RegistryError as error:
            raise RolloutError(
                f"{self.alias} cannot move to version {number} ({error}): promote another version "
                "with rlcar models promote"
            ) from None

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
            if not is_same_schema(one[kind], other[kind]):
                raise RolloutError(
                    f"version {candidate} has another {kind} ({len(other[kind])} numbers) than "
                    f"version {stable} ({len(one[kind])} numbers): sessions cannot move between "
                    "them, so serve it under an alias of its own"
                )


class _ChangedError(Exception):
    """The journal has a newer entry than the one on which a move of the alias was decided."""


def new_id() -> str:
    """Returns the name of a new rollout."""
    return uuid.uuid4().hex[:12]


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
