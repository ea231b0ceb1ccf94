"""Follows the journal of rollouts, and takes every step that is due.

No server leads the others. Each one reads the journal and the counts of all, computes the same next
event, and appends it; the journal accepts the first. So the rollout goes on while any server runs,
and a server that cannot read the registry keeps its present state.
"""

import asyncio
import contextlib
import logging
import time
import uuid

import msgspec

from rlcar.errors import UserError
from serve.delivery.counts import FAULTS, Fault, RolloutCounts, pooled
from serve.delivery.events import Aborted, AnyEvent, Promoting
from serve.delivery.operator import Operator, Snapshot, parsed_counts
from serve.delivery.progress import due_event
from serve.delivery.report import sentence, summary
from serve.delivery.sequential import Cusum
from serve.delivery.state import RolloutState
from serve.observing.metrics import ServerMetrics
from serve.policy.alias_follower import AliasFollower
from serve.policy.registry_calls import run_in_daemon_thread
from serve.policy.rollout_arms import ActiveRollout, RolloutArms, fault_reason, make_cusum

_LOGGER = logging.getLogger(__name__)
_IDLE_POLL_S = 1.0  # without a rollout, at least this long between two looks
_MAX_EVENTS = 20  # in one turn, for steps without a duration
_CHECKS_AFTER_END = 2


class RolloutFollower:
    """Keeps `arms` as the journal says, and writes what is due into the journal."""

    def __init__(
        self,
        operator: Operator,
        alias_follower: AliasFollower,
        arms: RolloutArms,
        metrics: ServerMetrics,
    ):
        self.state: RolloutState | None = None
        self.pooled = RolloutCounts()
        self._operator, self._alias_follower = operator, alias_follower
        self._arms, self._metrics = arms, metrics
        self._server = uuid.uuid4().hex[:16]
        self._wake = asyncio.Event()
        self._has_failed = False
        self._faults: dict[Fault, Cusum] = {}
        # What the tests have seen of each server: (answers, faults by name)
        self._seen: dict[str, tuple[int, dict[Fault, int]]] = {}
        self._tested = ""  # the rollout that they belong to
        self._checks_after_end = 0
        arms.on_alarm = self._wake.set

    async def follow(self, poll_s: float) -> None:
        """Takes turns for ever, whatever happens; an alarm makes the next one at once."""
        while True:
            is_idle = self._arms.active is None
            wait_s = max(poll_s, _IDLE_POLL_S) if is_idle else poll_s
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), wait_s)
            self._wake.clear()
            await self.turn_safely()

    async def turn_safely(self) -> None:
        """Takes a turn; after a failure everything stays as it is."""
        try:
            await self.turn()
        except UserError as error:
            if not self._has_failed:
                _LOGGER.error("the rollout cannot be followed, it stays as it is: %s", error)
            self._has_failed = True
        except Exception:
            _LOGGER.exception("the rollout cannot be followed; trying again")
        else:
            self._has_failed = False

    async def turn(self) -> None:
        """Reads the journal, shares the counts, and writes what is due."""
        snapshot = await run_in_daemon_thread(self._operator.read)
        for _ in range(_MAX_EVENTS):
            await self._show(snapshot.state)
            state = snapshot.state
            if state is None or self._arms.active is None:
                return
            if state.pending_alias is not None:
                await run_in_daemon_thread(self._operator.finish)
            else:
                await self._share(state)
                event = self._due(state)
                if event is None:
                    return
                await self._write(snapshot, event)
            snapshot = await run_in_daemon_thread(self._operator.read)

    async def _write(self, snapshot: Snapshot, event: AnyEvent) -> None:
        if await run_in_daemon_thread(self._operator.write, snapshot, event) is None:
            return  # another server was faster
        is_rollback = isinstance(event, Aborted) and event.is_rollback
        self._metrics.rollbacks += is_rollback
        _LOGGER.log(logging.WARNING if is_rollback else logging.INFO, "%s", sentence(event))

    async def _show(self, state: RolloutState | None) -> None:
        """Loads the candidate if needed, and lets `arms` act as the state says."""
        before, self.state = self.state, state
        if state is None:
            return
        if before is None or (before.phase, before.step) != (state.phase, state.step):
            _LOGGER.info("%s", summary(state))
        if state.is_over and await self._is_settled(state):
            self._arms.show(None)
            self._alias_follower.candidate = None
            return
        if not state.is_over:
            self._checks_after_end = 0
        elif self._arms.active is None:
            return
        candidate = self._alias_follower.candidate
        if candidate is None or candidate.number != state.candidate:
            candidate = await self._alias_follower.load_candidate(state.candidate)
        if candidate is None:
            if state.is_running:
                reason = f"version {state.candidate} cannot be loaded, see the server's log"
                await run_in_daemon_thread(
                    self._operator.command, lambda _: Aborted(reason, is_rollback=True)
                )
            return
        if self._arms.active is None or self._arms.active.rollout != state.rollout:
            self.pooled = RolloutCounts()
        self._arms.show(
            ActiveRollout(
                state.rollout,
                state.stable,
                candidate,
                state.weight,
                state.shadow_weight,
                state.specification.rollback,
            )
        )

    async def _is_settled(self, state: RolloutState) -> bool:
        """Whether the sessions may follow the alias again: it has moved, as far as it ever will."""
        current = self._alias_follower.current
        if not state.is_promoted or state.phase == "Degraded":
            return True
        if current is not None and current.number == state.candidate:
            return True
        if self._arms.active is None:
            return True
        await self._alias_follower.check()
        self._checks_after_end += self._metrics.is_registry_readable
        return self._checks_after_end > _CHECKS_AFTER_END

    async def _share(self, state: RolloutState) -> None:
        """Writes the counts of this server, and reads those of the others."""
        shared = self._operator.registry.rollout_counts(self._operator.alias, state.rollout)
        own = self._arms.counts
        tree = msgspec.to_builtins(own)
        await run_in_daemon_thread(shared.write, self._server, tree)
        counts = parsed_counts(await run_in_daemon_thread(shared.read)) | {self._server: own}
        self.pooled = pooled(counts.values())
        self._test(state, counts)

    def _test(self, state: RolloutState, counts: dict[str, RolloutCounts]) -> None:
        """Raises the alarm for faults over all servers, for latency and for worse laps."""
        rollback = state.specification.rollback
        if self._tested != state.rollout:
            self._tested, self._seen = state.rollout, {}
            self._faults = {name: make_cusum(rollback) for name in FAULTS}
        new_answers, new_faults = 0, dict.fromkeys(FAULTS, 0)
        for server, one in counts.items():
            answers = one.candidate.answers
            faults: dict[Fault, int] = {name: getattr(one.candidate, name) for name in FAULTS}
            seen_answers, seen = self._seen.get(server, (0, dict.fromkeys(FAULTS, 0)))
            new_answers += max(0, answers - seen_answers)
            for name in FAULTS:
                new_faults[name] += max(0, faults[name] - seen[name])
            self._seen[server] = (answers, faults)
        for name, cusum in self._faults.items():
            if cusum.add(new_faults[name], max(new_answers, new_faults[name])):
                total = self.pooled.candidate
                self._arms.raise_alarm(
                    *fault_reason(name, getattr(total, name), total.answers, rollback)
                )
        self._arms.check_latency()
        if state.weight > 0.0:
            self._test_kpis(state)

    def _test_kpis(self, state: RolloutState) -> None:
        significance = state.specification.rollback.kpi_significance
        for kpi in ("reward", "success"):
            evidence = self.pooled.evidence(kpi)
            if evidence.difference < 0.0 and evidence.is_significant(significance):
                self._arms.raise_alarm(
                    f"{kpi} {evidence.difference:+.4g} over {evidence.pairs} pairs of laps",
                    {f"{kpi}Difference": evidence.difference, "pairs": float(evidence.pairs)},
                )

    def _due(self, state: RolloutState) -> AnyEvent | None:
        alarm = self._arms.alarm
        if not state.is_running:
            return None
        if alarm is not None and alarm.rollout == state.rollout:
            return Aborted(alarm.reason, is_rollback=True, numbers=alarm.numbers)
        current = self._alias_follower.current
        if current is not None and current.number not in (state.stable, state.candidate):
            return Aborted(f"{self._operator.alias} moved to version {current.number} meanwhile")
        event = due_event(state, time.time(), self.pooled.value, self.pooled.evidence)
        if isinstance(event, Promoting):
            total = self.pooled.candidate
            return Promoting(f"{event.reason}, {total.answers} answers by the candidate")
        return event
