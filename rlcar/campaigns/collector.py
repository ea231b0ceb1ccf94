"""Exports a campaign to Prometheus: its jobs by state, their failures, its end and its runs."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rlcar.campaigns.campaign import CampaignRun
from rlcar.campaigns.scheduler import JOB_STATES
from rlcar.runs.collector import RunsCollector
from rlcar.runs.monitor import Reading


class CampaignCollector(Collector):
    """Collects a campaign, without reading the disk: the campaign itself looks at its runs."""

    def __init__(self, campaign: CampaignRun, runs: Path):
        self._campaign = campaign
        self._runs = RunsCollector(self._readings, runs)

    def describe(self) -> Iterator[Metric]:
        """Yields nothing, so that registering does not collect."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yields every family of metrics; called by prometheus_client."""
        jobs = self._campaign.jobs
        count = Counter(entry.state for entry in jobs)
        states = GaugeMetricFamily(
            "rlcar_campaign_jobs", "Jobs of the campaign, by state.", labels=("state",)
        )
        failures = GaugeMetricFamily(
            "rlcar_campaign_job_failures",
            "Times that the process of a job died, failed or was frozen since the campaign began.",
            labels=("campaign_job",),
        )
        frozen = GaugeMetricFamily(
            "rlcar_campaign_job_freezes",
            "Times that a job was ended because it was frozen since the campaign began.",
            labels=("campaign_job",),
        )
        for state in JOB_STATES:
            states.add_metric((state,), count[state])
        for entry in jobs:
            failures.add_metric((entry.job.name,), entry.failures)
            frozen.add_metric((entry.job.name,), entry.freezes)
        yield from (states, failures, frozen)
        for name, meaning, value in (
            ("slots", "Jobs that may run at once.", self._campaign.slots),
            ("paused", "1 while a user has paused the campaign.", self._campaign.is_paused),
            ("env_steps", "Env steps that all jobs have completed.", self._env_steps()),
            (
                "planned_env_steps",
                "Env steps of all jobs together.",
                sum(entry.env_steps_total for entry in jobs),
            ),
        ):
            yield GaugeMetricFamily(f"rlcar_campaign_{name}", meaning, value=value)
        yield self._end()
        yield from self._gpus()
        yield from self._runs.collect()

    def _end(self) -> Metric:
        family = GaugeMetricFamily(
            "rlcar_campaign_eta_seconds",
            "Time until the campaign ends, as its last status said it: likely, and the bounds low "
            "and high of a 90 % interval.",
            labels=("bound",),
        )
        eta = self._campaign.last_eta
        for bound, seconds in (
            {}
            if eta is None
            else {
                "low": eta.low_s,
                "likely": eta.likely_s,
                "high": eta.high_s,
            }.items()
        ):
            family.add_metric((bound,), seconds)
        return family

    def _gpus(self) -> Iterator[Metric]:
        labels = ("campaign_job", "device")
        families = {
            "utilisation": ("utilisation_ratio", "Utilisation of a GPU that a job uses, 0 to 1."),
            "memory_mb": ("memory_mebibytes", "Memory that a job uses on a GPU."),
            "temperature_c": ("temperature_celsius", "Temperature of a GPU that a job uses."),
        }
        for field, (name, meaning) in families.items():
            family = GaugeMetricFamily(f"rlcar_campaign_gpu_{name}", meaning, labels=labels)
            for entry in self._campaign.jobs:
                for use in entry.gpus:
                    value = getattr(use, field)
                    if value is not None:
                        family.add_metric((entry.job.name, str(use.device)), value)
            yield family

    def _env_steps(self) -> int:
        return sum(entry.env_steps for entry in self._campaign.jobs)

    def _readings(self) -> list[Reading]:
        return [
            Reading(entry.run, {} if entry.reader is None else entry.reader.latest())
            for entry in self._campaign.jobs
            if entry.run is not None
        ]
