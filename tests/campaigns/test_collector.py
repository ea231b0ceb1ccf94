"""A campaign exports its jobs, their failures and their runs."""

from rlcar.campaigns.campaign import CampaignRun
from rlcar.campaigns.collector import CampaignCollector
from rlcar.campaigns.config import Campaign
from rlcar.campaigns.scheduler import Event
from rlcar.config import make_config
from rlcar.runs.run import Run
from rlcar.system import heartbeat


def collected(collector):
    """Name with the values of its labels -> value."""
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in collector.collect()
        for sample in family.samples
    }


def test_a_campaign_exports_its_queue_and_its_runs(tmp_path):
    jobs = [{"name": name, "mode": "test", "local": True} for name in ("a", "b")]
    heartbeat.beat()  # the last one may be minutes ago, in an earlier test
    with Run(tmp_path / "a", make_config(mode="test")) as run:
        run.trained(8, {"model/loss": 1.5})
        run.log(512, 8)
        campaign = CampaignRun(Campaign.model_validate({"slots": 1, "jobs": jobs}), tmp_path)
        for failure in ("frozen", "killed", "killed"):
            campaign.scheduler.apply(Event("failed", 0.0, "a", failure=failure))
        campaign.scheduler.apply(Event("stopped", 0.0, "a"))
        found = collected(CampaignCollector(campaign, tmp_path))
    assert found["rlcar_campaign_jobs waiting"] == 2
    assert found["rlcar_campaign_jobs failed"] == 0
    assert found["rlcar_campaign_slots"] == 1
    assert found["rlcar_campaign_job_failures a"] == 3
    assert found["rlcar_campaign_job_freezes a"] == 1
    assert found["rlcar_campaign_job_freezes b"] == 0
    assert found["rlcar_campaign_paused"] == 0
    assert found["rlcar_campaign_env_steps"] == 512
    assert found["rlcar_campaign_planned_env_steps"] == 2 * campaign.jobs[0].env_steps_total
    assert found["rlcar_run_state a running"] == 1
    assert found["rlcar_loss a model"] == 1.5
    assert "rlcar_run_state b running" not in found
