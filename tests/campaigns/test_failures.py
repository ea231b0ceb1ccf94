"""Why a job failed, from what its process has left behind."""

import pytest

from rlcar.campaigns.failures import Ending, classify, default_limit
from rlcar.errors import ConfigError, NonFiniteError, StorageError, UserError
from rlcar.system.lease import HeldError


def of(error):
    return {"types": [one.__name__ for one in type(error).__mro__], "sentence": str(error)}


@pytest.mark.parametrize(
    ("ending", "kind", "reason"),
    [
        (Ending(2, of(ConfigError("seed = -1"))), "configuration", "seed = -1"),
        (Ending(2, of(UserError("no tracks"))), "configuration", "no tracks"),
        (Ending(2, {}, "No such option: --sed"), "configuration", "No such option: --sed"),
        (Ending(2, of(NonFiniteError("a NaN"))), "nan", "a NaN"),
        (Ending(2, of(StorageError("no answer"))), "unavailable", "no answer"),
        (Ending(2, of(HeldError("not free"))), "unavailable", "not free"),
        (Ending(2, of(UserError("no Ray")), is_on_cluster=True), "unavailable", "no Ray"),
        (Ending(2, of(ConfigError("bad")), is_on_cluster=True), "configuration", "bad"),
        (Ending(1, of(MemoryError("1 GiB"))), "memory", "1 GiB"),
        (
            Ending(1, of(RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 3 bytes"))),
            "memory",
            "RESOURCE_EXHAUSTED: Out of memory allocating 3 bytes",
        ),
        (
            Ending(1, of(RuntimeError("INTERNAL: CUDA_ERROR_ILLEGAL_ADDRESS"))),
            "device",
            "INTERNAL: CUDA_ERROR_ILLEGAL_ADDRESS",
        ),
        (Ending(1, of(ValueError("what"))), "unknown", "what"),
        (Ending(-9, {}), "killed", "killed by signal 9"),
        (Ending(137, {}), "killed", "killed by signal 9"),
        (
            Ending(-9, {}, has_oom_kill=True),
            "memory",
            "killed by the kernel, which had run out of memory",
        ),
        (Ending(130, {}), "killed", "stopped from outside the campaign, with a checkpoint"),
        (Ending(1, {}, "GPU is lost"), "device", "exit code 1: GPU is lost"),
        (Ending(1, {}), "unknown", "exit code 1"),
        (Ending(None, {}), "killed", "its process ended without an error"),
        (Ending(None, of(ConfigError("seed = -1"))), "configuration", "seed = -1"),
    ],
)
def test_what_a_process_left_says_why_it_ended(ending, kind, reason):
    assert classify(ending) == (kind, reason)


def test_what_cannot_work_is_not_retried_and_what_needs_time_gets_it():
    assert default_limit("configuration", 5, 10.0).retries == 0
    assert default_limit("nan", 5, 10.0).retries == 1
    assert default_limit("killed", 5, 10.0) == (5, 10.0)
    assert default_limit("device", 5, 10.0) == (5, 30.0)
