"""Exports a campaign to Prometheus: its jobs by state, their failures and their runs."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rlcar.campaigns.campaign import CampaignRun
from rlcar.runs.collector import RunsCollector
from rlcar.runs.monitor import Reading

JOB_STATES = ("waiting", "running", "pausing", "done", "failed")


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
            ("env_steps", "Env steps that all jobs have completed.", self._env_steps()),
            (
                "planned_env_steps",
                "Env steps of all jobs together.",
                sum(entry.env_steps_total for entry in jobs),
            ),
        ):
            yield GaugeMetricFamily(f"rlcar_campaign_{name}", meaning, value=value)
        yield from self._runs.collect()

    def _env_steps(self) -> int:
        return sum(entry.env_steps for entry in self._campaign.jobs)

    def _readings(self) -> list[Reading]:
        return [
            Reading(entry.run, {} if entry.reader is None else entry.reader.latest())
            for entry in self._campaign.jobs
            if entry.run is not None
        ]
