"""What is deleted after a run, and what stays."""

import pytest

from cluster.pipeline import journal
from cluster.pipeline.journal import Entry
from cluster.pipeline.retention import delete_unneeded

OUTCOMES = ["promoted", "abandoned", "rolled back", "promoted", "stopped at a gate", "invalid data"]
COPIES = ("parts/data/held-out", "learned", "training/nightly-0001/data/held-out")
RUN = "training/nightly-0001/runs/nightly-0001-bc"


@pytest.mark.parametrize(("history", "kept"), [(0, [6]), (2, [4, 5, 6]), (9, [1, 3, 4, 5, 6])])
def test_copies_and_old_episodes_are_deleted_and_the_rest_stays(tmp_path, history, kept):
    made = [journal.begin(tmp_path, {}, {}) for _ in range(len(OUTCOMES) + 1)]
    for run in made:
        for place in ("data", "gates", RUN, *COPIES):
            (run.folder / place).mkdir(parents=True)
    for run, outcome in zip(made, OUTCOMES, strict=False):
        run.write(Entry("x", 0.0, 1.0, {}, {}, "", outcome))
    for _ in range(2):  # it may be repeated
        delete_unneeded(tmp_path, history)
    *ended, still_open = made
    assert [run.number for run in ended if (run.folder / "data").exists()] == kept
    for run in ended:
        assert all((run.folder / place).exists() for place in ("plan.json", "gates", RUN))
        assert not any((run.folder / place).exists() for place in ("parts", "learned"))
        assert not (run.folder / "training/nightly-0001/data").exists()
    assert all((still_open.folder / place).exists() for place in ("data", *COPIES))
