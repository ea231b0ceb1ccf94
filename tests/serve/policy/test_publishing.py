"""`rlcar serve RUN` serves exactly that run, and does not move an existing alias unasked."""

import pytest

from rlcar.registry import Registry
from serve.observing.metrics import ServerMetrics
from serve.policy.alias_follower import AliasFollower
from serve.policy.publishing import publish_for_serving
from tests.serve.live.live_page import save_run
from tests.serve.served import publish


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("runs") / "mine", 128)


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


def test_a_server_that_follows_a_number_takes_no_other_version(tmp_path):
    publish(tmp_path / "models")
    follower = AliasFollower(Registry(tmp_path / "models"), "7", ServerMetrics())
    follower.load_first()
    assert follower.current is None
