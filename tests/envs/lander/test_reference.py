"""Our dynamics beside Basilisk, where it is installed."""

import importlib.util

import numpy as np
import pytest

from rlcar.envs.lander.reference import BasiliskLander, compare
from rlcar.errors import UserError

IS_INSTALLED = importlib.util.find_spec("Basilisk") is not None


@pytest.mark.skipif(IS_INSTALLED, reason="Basilisk is installed")
def test_without_basilisk_one_sentence_says_what_to_install():
    with pytest.raises(
        UserError, match=r"bsk \(Basilisk\).*not fully installed \(No module.*rlcar\[basilisk\]"
    ):
        BasiliskLander()


@pytest.mark.skipif(not IS_INSTALLED, reason="Basilisk is not installed (extra basilisk)")
def test_ten_seconds_of_flight_agree_with_basilisk():
    assert compare(20, np.random.default_rng(0)).error_m_s < 1e-3
