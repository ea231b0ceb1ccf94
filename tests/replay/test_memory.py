"""The size of a replay buffer is compared with the memory of a host or a container."""

import re

import pytest

from rlcar.config import make_config
from rlcar.errors import ConfigError
from rlcar.replay import Memory, check_memory, host_memory, replay_need
from rlcar.replay.rings import Rings
from rlcar.sim import SPEC
from rlcar.types import Spec

GB = 10**9
CAMERA = Spec(0, 2, True, (64, 64, 3))


def config_of(capacity, env_steps, *more):
    return make_config(
        overrides=[
            f"replay.capacity_env_steps={capacity}",
            f"training.env_steps={env_steps}",
            "training.cars=2",
            *more,
        ]
    )


def test_the_need_is_what_the_rings_hold():
    config = config_of(64 * 10, 10**6)
    need = replay_need(config, SPEC, carry_size=5)
    rings = Rings(SPEC, 64, 10, carry_size=5)
    rings._grow(10)
    assert need.at_capacity == need.of_this_training == rings.nbytes()
    assert need.env_step == rings.nbytes() / 640


def test_needed_and_available_memory_are_reported_at_the_start():
    config = config_of(500_000, 500_000)
    lines = check_memory(config, replay_need(config, CAMERA), Memory(24 * GB, 20 * GB))
    assert lines == [
        "replay buffer: 500000 env steps at capacity need 6.15 GB (12307 bytes each); this host "
        "has 24 GB of memory, 20 GB of it available now"
    ]


def test_more_than_is_available_is_a_warning_with_what_fits():
    config = config_of(500_000, 500_000)
    memory = Memory(24 * GB, 3 * GB)
    _, warning = check_memory(config, replay_need(config, CAMERA), memory)
    assert (
        "warning: this training fills 6.15 GB of the replay buffer, more than is available"
        in warning
    )
    _check_largest(config, warning, memory)


def test_a_buffer_that_a_short_training_does_not_fill_is_only_a_warning():
    config = config_of(10**9, 1000)
    _, warning = check_memory(config, replay_need(config, CAMERA), Memory(24 * GB, 3 * GB))
    assert "would not fit at capacity; the training ends before that" in warning


def test_a_training_that_cannot_fit_is_refused_with_the_capacity_that_fits():
    config = config_of(10**9, 10**9)
    memory = Memory(24 * GB, 3 * GB)
    with pytest.raises(ConfigError, match=r"1000000000 env steps at .* need 1.23e\+04 GB") as end:
        check_memory(config, replay_need(config, CAMERA), memory, "the learner's host")
    assert "the learner's host has 24 GB of memory, 3 GB of it available" in str(end.value)
    _check_largest(config, str(end.value), memory)


def _check_largest(config, text, memory):
    largest = int(re.search(r"replay\.capacity_env_steps to (\d+) at most", text)[1])

    def need(capacity):
        replay = config.replay.model_copy(update={"capacity_env_steps": capacity})
        return replay_need(config.model_copy(update={"replay": replay}), CAMERA).at_capacity

    assert need(largest) <= memory.available < need(largest + 64)


def test_an_observation_of_which_no_block_fits_says_what_to_make_smaller():
    config = config_of(10**6, 10**6)
    need = replay_need(config, Spec(2**40, 2, True, None))
    with pytest.raises(ConfigError, match="not even one block fits: lower training.cars"):
        check_memory(config, need, Memory(24 * GB, 20 * GB))


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")


MEMINFO = {"proc/meminfo": "MemTotal: 16000000 kB\nMemAvailable: 8000000 kB\nHugePages_Total: 0"}
V2 = {
    "proc/self/cgroup": "0::/pod/app",
    "sys/fs/cgroup/pod/memory.max": 4 * GB,
    "sys/fs/cgroup/pod/memory.current": 3 * GB,
    "sys/fs/cgroup/pod/memory.stat": f"anon 5\ninactive_file {GB}",
    "sys/fs/cgroup/pod/app/memory.max": "max",
    "sys/fs/cgroup/pod/app/memory.current": 2 * GB,
}
V1 = {
    "proc/self/cgroup": "5:cpu,memory:/pod\n0::/",
    "sys/fs/cgroup/memory/pod/memory.limit_in_bytes": 4 * GB,
    "sys/fs/cgroup/memory/pod/memory.usage_in_bytes": 3 * GB,
    "sys/fs/cgroup/memory/pod/memory.stat": f"inactive_file 7\ntotal_inactive_file {GB}",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": 2**63 - 4096,
    "sys/fs/cgroup/memory/memory.usage_in_bytes": 9 * GB,
}
# In a container Docker mounts the container's cgroup as the root, but reports the host's path.
DOCKER = {
    "proc/self/cgroup": "0::/docker/abc",
    "sys/fs/cgroup/memory.max": 4 * GB,
    "sys/fs/cgroup/memory.current": 2 * GB,
}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, (16_384_000_000, 8_192_000_000)),
        (V2, (4 * GB, 2 * GB)),
        (V1, (4 * GB, 2 * GB)),
        (DOCKER, (4 * GB, 2 * GB)),
    ],
)
def test_the_limit_of_a_container_counts_as_memory(files, expected, tmp_path):
    write(tmp_path, MEMINFO | files)
    assert host_memory(tmp_path) == expected


def test_this_host_has_memory():
    memory = host_memory()
    assert 0 < memory.available <= memory.total
