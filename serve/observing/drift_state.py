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

SILENT_S = 600.0  # without a lap, after which a version is taken to drive no longer


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
    is_silent: bool = False  # it has driven no lap for long, so its findings are old
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
        self._compared_s = -EVERY_S
        self._compared_laps = 0
        self._reward: KpiFinding | None = None
        self._success: KpiFinding | None = None
        self._active_s: float | None = None  # when the last lap came
        self._active_laps = 0  # both driven and reported
        self._is_silent = False
        self._found_unix_s: float | None = None  # while there is an alarm
        self._found_laps = 0  # laps that had been driven at the last finding

    def add_laps(self, laps: Sequence[LapStatistics]) -> None:
        """Adds laps, each with a leading axis of length 1, in the order in which they began."""
        self._newest += laps
        self.laps += len(laps)

    def turn(self, now_s: float, unix_s: float) -> str | None:
        """Compares what is due; returns a sentence when an alarm begins or ends.

        An alarm ends when a whole window of laps has passed without a finding.
        """
        self.add_laps(self.cutter.take(now_s))
        self._note_activity(now_s)
        self._compare(now_s)
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
            is_silent=self._is_silent,
            since_unix_s=self._found_unix_s,
            alarms=self.alarms,
            reward=self._reward,
            success=self._success,
        )

    def _note_activity(self, now_s: float) -> None:
        laps = self.laps + self.reported.laps
        if self._active_s is None or laps > self._active_laps:
            self._active_s, self._active_laps = now_s, laps
        self._is_silent = now_s - self._active_s > max(SILENT_S, self.cutter.longest_s)

    def _compare(self, now_s: float) -> None:
        """Compares the reported laps, at most as often as a window is examined."""
        is_due = now_s - self._compared_s >= EVERY_S
        if is_due and self.reported.laps > self._compared_laps:
            self._compared_s, self._compared_laps = now_s, self.reported.laps
            reference = self.detector.reference
            self._reward = compare_rewards(self.reported.rewards, reference.reward)
            self._success = compare_successes(self.reported.successes, reference.is_lap)

    def _examine(self) -> Window:
        fields = zip(*self._newest, strict=True)
        laps = LapStatistics(*(np.concatenate(field) for field in fields))
        return Window(
            self.detector.examine(laps), self.detector.shifts(laps), laps.share.mean(axis=0)
        )
