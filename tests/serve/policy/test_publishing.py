"""`rlcar serve RUN` serves exactly that run; only a complete one becomes the champion unasked."""

import re

import pytest

from rlcar.errors import UserError
from rlcar.registry import Registry
from rlcar.runs.completion import completion_of
from serve.observing.metrics import ServerMetrics
from serve.policy.alias_follower import AliasFollower
from serve.policy.publishing import publish_for_serving
from tests.serve.live.live_page import save_run
from tests.serve.served import publish
from tests.support.tiny_run import make_tiny_config

TOTAL = make_tiny_config().training.env_steps


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("runs") / "mine", TOTAL)


@pytest.fixture
def begun(tmp_path):
    """A run that is still being trained, as far as its folder says."""
    return save_run(tmp_path / "runs" / "begun", 128)


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "models")


def served_version(registry, follow):
    follower = AliasFollower(registry, follow, ServerMetrics())
    follower.load_first()
    return follower.current.number


def test_the_first_run_becomes_the_champion(registry, run):
    published = publish_for_serving(registry, run, run.parent, "champion")
    assert published.follow == "champion"
    assert published.message == f"published {run} as version 1, which is champion now"
    assert registry.aliases() == {"champion": 1}


def test_a_later_run_is_served_and_the_champion_stays(registry, run, tmp_path):
    publish(tmp_path / "models")
    published = publish_for_serving(registry, run, run.parent, "champion")
    assert registry.aliases() == {"champion": 1}
    assert published.message == (
        f"published {run} as version 2 and serving it; champion is still version 1 "
        "(to move it: rlcar models promote 2, or serve with --promote)"
    )
    publish(tmp_path / "models", seed=1)  # version 3, the champion by now
    assert served_version(registry, published.follow) == 2


def test_promote_moves_the_alias(registry, run, tmp_path):
    publish(tmp_path / "models", alias="candidate")
    published = publish_for_serving(registry, run, run.parent, "candidate", should_promote=True)
    assert published.follow == "candidate"
    assert published.message.endswith("which is candidate now, before it version 1")
    assert registry.aliases() == {"candidate": 2}


def test_without_a_run_the_newest_is_published_only_into_an_empty_registry(registry, run):
    assert publish_for_serving(registry, None, run.parent, "champion").follow == "champion"
    assert publish_for_serving(registry, None, run.parent, "champion") is None
    assert len(registry.versions()) == 1


def test_without_a_run_an_incomplete_one_is_not_published(registry, begun):
    refused = (
        f"{registry.place} holds no model, and the training of {begun} is incomplete (128 of "
        f"{TOTAL:,} env steps): wait for its end, or serve its best policy so far with: "
        f"rlcar serve {begun}"
    )
    with pytest.raises(UserError, match=f"^{re.escape(refused)}$"):
        publish_for_serving(registry, None, begun.parent, "champion")
    assert registry.versions() == []


def test_without_a_run_the_newest_complete_one_is_published(registry, begun):
    save_run(begun.parent / "whole", TOTAL)
    save_run(begun, 256)  # written last
    published = publish_for_serving(registry, None, begun.parent, "champion")
    assert published.message == (
        f"published {begun.parent / 'whole'} as version 1, which is champion now"
    )


def test_an_incomplete_run_is_served_by_its_number_and_becomes_no_champion(registry, begun):
    published = publish_for_serving(registry, begun, begun.parent, "champion")
    assert published == (
        "1",
        f"published {begun} as version 1 and serving it; its training is incomplete (128 of "
        f"{TOTAL:,} env steps), so no version is champion yet (to set it: rlcar models promote 1, "
        "or serve with --promote)",
    )
    assert registry.aliases() == {}
    publish_for_serving(registry, begun, begun.parent, "champion", should_promote=True)
    assert registry.aliases() == {"champion": 2}


def test_a_run_whose_old_checkpoints_were_deleted_is_complete_by_its_report(begun):
    assert not completion_of(begun).is_complete
    (begun / "report.json").write_text(f'{{"env_steps": {TOTAL}}}')
    assert completion_of(begun).is_complete
    (begun / "report.json").write_text('{"env_steps": null}')
    assert completion_of(begun) == (128, TOTAL)


def test_a_server_that_follows_a_number_takes_no_other_version(tmp_path):
    publish(tmp_path / "models")
    follower = AliasFollower(Registry(tmp_path / "models"), "7", ServerMetrics())
    follower.load_first()
    assert follower.current is None
