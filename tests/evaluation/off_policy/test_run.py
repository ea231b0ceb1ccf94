import io
import json

import pytest
from rich.console import Console

from rlcar.errors import UserError
from rlcar.evaluation.off_policy.fitted_q import FittedQSettings
from rlcar.evaluation.off_policy.policies import policy_of_driver
from rlcar.evaluation.off_policy.run import estimate, print_report, write_report
from tests.support.recordings import record

FEW = FittedQSettings(members=2, hidden_units=8, updates=80)


def test_a_program_compares_policies_without_output_or_files(tmp_path, monkeypatch, capfd):
    data = record(tmp_path / "data")
    careful, ray = (policy_of_driver(name, data) for name in ("careful", "longest_ray"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    report = estimate(data, [careful], FEW, baseline=ray)
    assert capfd.readouterr() == ("", "")
    assert not list((tmp_path / "here").iterdir())
    assert report["policies"]["careful"]["verdict"] == "unknown"  # from 600 random transitions
    assert report["baseline"]["name"] == "longest_ray"
    write_report(tmp_path / "here", report)
    written = json.loads((tmp_path / "here" / "ope.json").read_text())
    assert written["policies"].keys() == {"careful"}

    # The reason holds the name of the baseline, which Rich would take for markup.
    report["policies"]["careful"]["reason"] = "the baseline runs/[/ray] is unknown"
    printed = io.StringIO()
    print_report(report, Console(file=printed, width=1000))
    assert "the baseline runs/[/ray] is unknown" in printed.getvalue()


def test_policies_of_the_same_name_are_refused(tmp_path):
    data = record(tmp_path / "data", episodes=2)
    careful = policy_of_driver("careful", data)
    with pytest.raises(UserError, match="cannot compare careful, careful: name policies that diff"):
        estimate(data, [careful], FEW, baseline=careful)
