"""The campaigns of ten Atari games are complete and can be read."""

import re
from pathlib import Path

import pytest

from rlcar.campaigns.config import load_campaign

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tune_configs"
EPISODES = [30_000, 25_000, 25_000, 20_000, 15_000, 15_000, 10_000, 10_000, 3_000, 3_000]


@pytest.mark.parametrize(
    ("name", "share"), [("atari-campaign.yaml", 1.0), ("atari-campaign-small.yaml", 1e-3)]
)
def test_ten_games_have_their_budget_in_episodes(name, share):
    campaign = load_campaign(FOLDER / name)
    budgets = [job.resolved().training.episodes for job in campaign.jobs]
    assert budgets == [round(number * share) for number in EPISODES]
    assert len({job.env for job in campaign.jobs}) == 10
    assert all(job.is_local for job in campaign.jobs)


def test_the_guide_shows_the_file_of_the_ten_games(tmp_path):
    guide = (ROOT / "docs" / "how-to" / "production-host.md").read_text()
    shown = [text for text in re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL) if "ALE/" in text]
    assert len(shown) == 1
    (tmp_path / "shown.yaml").write_text(shown[0])
    assert load_campaign(tmp_path / "shown.yaml") == load_campaign(FOLDER / "atari-campaign.yaml")
