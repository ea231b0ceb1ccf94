"""What is known of the drift of one version: its window of laps, its alarm and its KPIs."""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rlcar.evaluation.lap_reference import LapStatistics, Reference
from serve.observing.drift import EVERY_S, WINDOW_LAPS, Detector, Finding
from serve.observing.drift_kpis import (
    KpiFinding,
    ReportedLaps,
    compare_rewards,
    compare_successes,
)
from serve.observing.drift_laps import LapCutter


class Window(NamedTuple):
    """The newest window that was examined."""

    findings: tuple[Finding, ...]
    shift: np.ndarray  # [C], of each channel's mean, in deviations between laps
    share: np.ndarray  # [C, BINS], histograms


class DriftReport(NamedTuple):
    """A version as `GET /v1/drift`, the metrics and the picture show it; it never changes."""

    version: int
    problem: str | None  # why there is no detection; None if there is
    channels: tuple[str, ...] = ()
    reference_laps: int = 0
    laps: int = 0  # that were driven and counted
    window: Window | None = None  # None before the first `WINDOW_LAPS` laps
    expected: np.ndarray | None = None  # [C, BINS], histograms of the reference
    edges: tuple[np.ndarray, ...] = ()
    is_drift: bool = False
    since_unix_s: float | None = None  # when the drift was found
    alarms: int = 0
    reward: KpiFinding | None = None
    success: KpiFinding | None = None


class VersionDrift:
    """Watches one version; the caller gives the time, so that a test can simulate days."""

    def __init__(self, version: int, reference: Reference, channels: tuple[str, ...]):
        self.version, self.channels = version, channels
        self.detector = Detector(reference)
        self.cutter = LapCutter(reference)
        self.reported = ReportedLaps()
        self.laps = self.alarms = 0
        self._newest: deque[LapStatistics] = deque(maxlen=WINDOW_LAPS)
        self._window: Window | None = None
        self._examined_s = -EVERY_S
        self._examined_laps = 0
        self._found_unix_s: float | None = None  # while there is an alarm
        self._found_laps = 0  # laps that had been driven at the last finding

    def add_laps(self, laps: Sequence[LapStatistics]) -> None:
        """Adds laps, each with a leading axis of length 1, in the order in which they began."""
        self._newest += laps
        self.laps += len(laps)

    def turn(self, now_s: float, unix_s: float) -> str | None:
        """Examines the window if it is due; returns a sentence when an alarm begins or ends.

        An alarm ends when a whole window of laps has passed without a finding.
        """
        self.add_laps(self.cutter.take())
        is_due = self.laps > self._examined_laps and now_s - self._examined_s >= EVERY_S
        if not is_due or len(self._newest) < WINDOW_LAPS:
            return None
        self._examined_s, self._examined_laps = now_s, self.laps
        self._window = self._examine()
        worst = max(self._window.findings, key=lambda finding: finding.value / finding.threshold)
        if worst.is_drift:
            self._found_laps = self.laps
            if self._found_unix_s is None:
                self._found_unix_s = unix_s
                self.alarms += 1
                return f"version {self.version} drifts: {self.described(worst)}"
        elif self._found_unix_s is not None and self.laps - self._found_laps >= WINDOW_LAPS:
            self._found_unix_s = None
            return f"version {self.version} drives as in its evaluation again"
        return None

    def described(self, finding: Finding) -> str:
        """Returns a finding in words."""
        name = "all channels" if finding.channel is None else self.channels[finding.channel]
        return (
            f"{finding.test} of {name} is {finding.value:.3g} over the last {WINDOW_LAPS} laps "
            f"(threshold {finding.threshold:.3g})"
        )

    def report(self) -> DriftReport:
        """Returns the present state."""
        reference = self.detector.reference
        return DriftReport(
            version=self.version,
            problem=None,
            channels=self.channels,
            reference_laps=len(reference.laps.mean),
            laps=self.laps,
            window=self._window,
            expected=reference.laps.share.mean(axis=0),
            edges=reference.edges,
            is_drift=self._found_unix_s is not None,
            since_unix_s=self._found_unix_s,
            alarms=self.alarms,
            reward=compare_rewards(self.reported.rewards, reference.reward),
            success=compare_successes(self.reported.successes, reference.is_lap),
        )

    def _examine(self) -> Window:
        fields = zip(*self._newest, strict=True)
        laps = LapStatistics(*(np.concatenate(field) for field in fields))
        return Window(
            self.detector.examine(laps), self.detector.shifts(laps), laps.share.mean(axis=0)
        )
