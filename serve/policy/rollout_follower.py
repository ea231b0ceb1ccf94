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
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from rlcar.errors import UserError
from rlcar.registry.shared_counts import SharedCounts
from serve.delivery.counts import TESTED_FAULTS, Fault, RolloutCounts, pooled
from serve.delivery.events import Aborted, AnyEvent, Promoting, Undecided
from serve.delivery.integrations import Integrations
from serve.delivery.notices import Notices
from serve.delivery.operator import Operator, Snapshot, parsed_counts
from serve.delivery.progress import due_event, due_metrics
from serve.delivery.prometheus_source import PrometheusSource
from serve.delivery.report import sentence, summary
from serve.delivery.sequential import Cusum
from serve.delivery.specification import AnalysisMetric, Kpi
from serve.delivery.state import RolloutState
from serve.observing.metrics import ServerMetrics
from serve.policy.alias_follower import AliasFollower
from serve.policy.registry_calls import run_in_daemon_thread
from serve.policy.rollout_arms import ActiveRollout, RolloutArms, fault_reason, make_cusum

_LOGGER = logging.getLogger(__name__)
_IDLE_POLL_S = 1.0  # without a rollout, at least this long between two looks
_MAX_EVENTS = 20  # in one turn, for steps without a duration
_CHECKS_AFTER_END = 2
_FEWEST_ANSWERS = 20  # by the candidate, before it is promoted by itself
_KPIS: tuple[Kpi, ...] = ("reward", "success")


class _Counted(NamedTuple):
    """What all servers have counted."""

    own: RolloutCounts
    files: dict[str, dict[str, Any]]  # of this server and of the others, in the registry
    by_server: dict[str, RolloutCounts]
    pooled: RolloutCounts


class RolloutFollower:
    """Keeps `arms` as the journal says, and writes what is due into the journal."""

    def __init__(
        self,
        operator: Operator,
        alias_follower: AliasFollower,
        arms: RolloutArms,
        metrics: ServerMetrics,
        integrations: Integrations,
    ):
        self.notices = Notices(integrations, operator.alias, self._claim_notice, metrics)
        self.state: RolloutState | None = None
        self.pooled = RolloutCounts()
        self._operator, self._alias_follower = operator, alias_follower
        self._arms, self._metrics = arms, metrics
        prometheus = integrations.prometheus
        self._prometheus = None if prometheus is None else PrometheusSource(prometheus)
        self._lacks_prometheus = False
        self._server = uuid.uuid4().hex[:16]
        self._wake = asyncio.Event()
        self._has_failed = self._cannot_share = False
        self._written: tuple[str, RolloutCounts] | None = None  # the rollout, and the own counts
        self._counted: _Counted | None = None  # at the last look
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
            self._arms.check_latency()  # also while the registry cannot be read
            await self.turn_safely()

    async def close(self) -> None:
        """Closes the connections to Prometheus."""
        if self._prometheus is not None:
            await self._prometheus.close()

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
            self.notices.look(snapshot.entries)
            await self._show(snapshot)
            state = snapshot.state
            if state is None:
                return
            if state.pending_alias is not None:
                await run_in_daemon_thread(self._operator.finish)
            else:
                if self._arms.active is None:
                    return
                await self._share(state)
                event = await self._due(state)
                if event is None:
                    return
                await self._write(snapshot, event)
            snapshot = await run_in_daemon_thread(self._operator.read)

    async def _claim_notice(self, number: int) -> bool:
        return await run_in_daemon_thread(self._operator.claim_notice, number)

    async def _write(self, snapshot: Snapshot, event: AnyEvent) -> None:
        state = await run_in_daemon_thread(self._operator.write, snapshot, event)
        if state is None:
            return  # another server was faster
        is_rollback = isinstance(event, Aborted) and event.is_rollback
        self._metrics.rollbacks += is_rollback
        _LOGGER.log(logging.WARNING if is_rollback else logging.INFO, "%s", sentence(event))
        if is_rollback:
            await run_in_daemon_thread(self._operator.repair, state)

    async def _show(self, snapshot: Snapshot) -> None:
        """Loads the candidate if needed, and lets `arms` act as the state says."""
        state = snapshot.state
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
            self._arms.show(None)  # this server goes on with the alias's version
            if state.is_running and state.specification.rollback.enabled:
                reason = f"version {state.candidate} cannot be loaded, see the server's log"
                await self._write(snapshot, Aborted(reason, is_rollback=True))
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
                _next_weight(state),
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
        own = pooled([self._arms.counts])  # as they are now: threads read them
        if self._written != (state.rollout, own):
            try:
                await run_in_daemon_thread(_write, shared, self._server, own)
                self._written, self._cannot_share = (state.rollout, own), False
            except UserError as error:  # a server that can only read reads those of the others
                if not self._cannot_share:
                    _LOGGER.error("the counts of the rollout cannot be shared: %s", error)
                self._cannot_share = True
        found = await run_in_daemon_thread(_read, shared, self._server, own, self._counted)
        if self._server not in found.files:
            self._written = None  # again at the next look
        self._counted, self.pooled = found, found.pooled
        self._test(state, found.by_server)

    def _test(self, state: RolloutState, counts: dict[str, RolloutCounts]) -> None:
        """Raises the alarm for faults over all servers, for latency and for worse laps."""
        rollback = state.specification.rollback
        if self._tested != state.rollout:
            self._tested, self._seen = state.rollout, {}
            self._faults = {name: make_cusum(rollback) for name in TESTED_FAULTS}
        new_answers, new_faults = 0, dict.fromkeys(TESTED_FAULTS, 0)
        for server, one in counts.items():
            answers = one.candidate.answers
            faults: dict[Fault, int] = {
                name: getattr(one.candidate, name) for name in TESTED_FAULTS
            }
            seen_answers, seen = self._seen.get(server, (0, dict.fromkeys(TESTED_FAULTS, 0)))
            new_answers += max(0, answers - seen_answers)
            for name in TESTED_FAULTS:
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
        for kpi in _KPIS:
            evidence = self.pooled.evidence(kpi)
            if evidence.difference < 0.0 and evidence.is_significant(significance):
                self._arms.raise_alarm(
                    f"{kpi} {evidence.difference:+.4g} over {evidence.pairs} pairs of laps",
                    {f"{kpi}Difference": evidence.difference, "pairs": float(evidence.pairs)},
                )

    async def _due(self, state: RolloutState) -> AnyEvent | None:
        alarm = self._arms.alarm
        if not state.is_running:
            return None
        if alarm is not None and alarm.rollout == state.rollout:
            return Aborted(alarm.reason, is_rollback=True, numbers=alarm.numbers)
        event = await self._of_moved_alias(state)
        if event is not None:
            return event
        now_s = time.time()
        found: dict[str, float | None] = {}
        queries = [metric for metric in due_metrics(state, now_s) if metric.query is not None]
        if queries:
            answers = await self._queried(queries, state)
            if answers is None:
                return None
            found = answers

        def measure(metric: AnalysisMetric) -> float | None:
            return found[metric.name] if metric.value is None else self.pooled.value(metric.value)

        event = due_event(state, now_s, measure, self.pooled.evidence)
        if isinstance(event, Promoting):
            return self._of_end(state, event)
        return event

    async def _queried(
        self, metrics: Sequence[AnalysisMetric], state: RolloutState
    ) -> dict[str, float | None] | None:
        """Returns the values of queries; None if an alarm cannot wait, or without Prometheus."""
        if self._prometheus is None:
            if not self._lacks_prometheus:
                _LOGGER.error(
                    "metric %r of the rollout is a query, and this server has no Prometheus: name "
                    "it in the file of --integrations",
                    metrics[0].name,
                )
            self._lacks_prometheus = True
            return None
        measuring = asyncio.ensure_future(self._prometheus.measure(metrics, state))
        waking = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait({measuring, waking}, return_when=asyncio.FIRST_COMPLETED)
            return measuring.result() if measuring.done() else None
        finally:
            measuring.cancel()
            waking.cancel()

    async def _of_moved_alias(self, state: RolloutState) -> AnyEvent | None:
        """Returns what follows if somebody has moved the alias during the rollout."""
        current = self._alias_follower.current
        if current is None or current.number == state.stable:
            return None
        # This server may have read the alias before the rollout began.
        operator = self._operator
        number = await run_in_daemon_thread(operator.registry.resolve, operator.alias)
        if number == state.stable:
            return None
        said = f"{operator.alias} moved to version {number} meanwhile"
        is_promotion = number == state.candidate and state.specification.promotes
        return Promoting(said) if is_promotion else Aborted(said)

    def _of_end(self, state: RolloutState, event: Promoting) -> AnyEvent:
        """Returns the promotion after all steps; without answers a person must decide."""
        answers = self.pooled.candidate.answers
        is_accepted = state.step > len(state.specification.steps())  # by a resume
        if answers < _FEWEST_ANSWERS and not is_accepted:
            return Undecided(
                f"{event.reason}, with only {answers} answers by the candidate: promote or abort it"
            )
        return Promoting(f"{event.reason}, {answers} answers by the candidate")


def _write(shared: SharedCounts, server: str, own: RolloutCounts) -> None:
    shared.write(server, msgspec.to_builtins(own))


def _read(
    shared: SharedCounts, server: str, own: RolloutCounts, before: _Counted | None
) -> _Counted:
    """Reads the counts of the other servers, and compares the laps of all, unless nothing is new.

    With many laps that takes some time, so it is no work for the event loop.
    """
    files = shared.read()
    if before is not None and before.own == own and before.files == files:
        return before
    others = {name: tree for name, tree in files.items() if name != server}
    by_server = parsed_counts(others) | {server: own}
    total = pooled(by_server.values())
    for kpi in _KPIS:
        if before is not None:
            total.take_evidence(kpi, before.pooled)
        total.evidence(kpi)  # which it keeps
    return _Counted(own, files, by_server, total)


def _next_weight(state: RolloutState) -> float:
    """Returns the weight of the next step that sets one; 0 if none does."""
    following = state.specification.steps()[state.step + 1 :] if state.is_running else []
    return next((step.set_weight for step in following if step.set_weight is not None), 0.0)
