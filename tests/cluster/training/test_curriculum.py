"""A curriculum on Ray: the same stages with processes, and one runtime for all of them."""

import pytest
import ray

from cluster.config import ClusterConfig
from cluster.training.loop import train
from rlcar.training.curriculum.machine import Phase, Trained
from rlcar.training.curriculum.record import begin_record
from rlcar.training.curriculum.runner import CurriculumRun
from tests.support.tiny_curriculum import curriculum, stage

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.usefixtures("embedded_ray"),
]
CLUSTER = ClusterConfig(simulators=1)


def test_the_stages_of_a_curriculum_share_one_ray_and_carry_the_learner(tmp_path):
    sessions = []

    def train_on_ray(config, folder, resume, on_evaluated):
        sessions.append(ray.get_runtime_context().get_job_id())
        return train(config, CLUSTER, folder, resume, on_evaluated)

    folder = tmp_path / "tiny"
    folder.mkdir()
    made = curriculum(stage("a", min_episodes=1), stage("b", max_env_steps=512))
    run = CurriculumRun(begin_record(folder, made), train_on_ray)
    assert run.run()
    assert run.record.state.phase is Phase.DONE
    assert len(set(sessions)) == 1
    first, second = (run.record.details_of_run((n, 1), Trained) for n in (0, 1))
    assert first["env_steps"] <= 1024
    grown = second["statistics"]["observation"]["count"]
    assert grown > first["statistics"]["observation"]["count"]
