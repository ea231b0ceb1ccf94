"""What the doctor finds on machines that lack something, and that it says how to mend it."""

import importlib.metadata
import os
import socket

import pytest

from benchmarks.processes import free_port
from cluster.doctor import machine as doctor
from cluster.doctor.machine import Finding
from cluster.jobs.auth_token import token_path


@pytest.fixture
def home(tmp_path):
    (tmp_path / ".ray").mkdir()
    return {"HOME": str(tmp_path), "RAY_TMPDIR": str(tmp_path / "tmp")}


def states(findings):
    return {finding.check: finding.state for finding in findings}


def only(findings):
    (finding,) = findings
    return finding


@pytest.mark.slow
def test_this_very_machine_has_no_problem_and_each_warning_says_what_to_do(tmp_path, home):
    findings = doctor.examine(tmp_path / "runs", os.environ | home)
    assert {"Python", "packages", "machine", "token", "run folder", "GPU"} <= states(
        findings
    ).keys()
    assert [finding for finding in findings if finding.state != "ok" and not finding.fix] == []
    assert states(findings)["packages"] == states(findings)["Python"] == "ok"
    assert not (tmp_path / "runs").exists()


def test_a_token_that_others_may_read_is_a_warning_with_its_command(home):
    path = token_path(home)
    path.write_text("secret-of-the-cluster")
    path.chmod(0o644)
    findings = list(doctor._token(home | {"RAY_AUTH_MODE": "token"}))
    assert states(findings) == {"token": "ok", "token file": "warning"}
    assert findings[1].fix == f"chmod 600 {path}"
    path.chmod(0o600)
    assert states(doctor._token(home | {"RAY_AUTH_MODE": "token"})) == {"token": "ok"}


@pytest.mark.parametrize(
    ("variables", "state", "message"),
    [
        ({}, "ok", "no token"),
        ({"RAY_AUTH_MODE": "disabled"}, "ok", "disabled"),
        ({"RAY_AUTH_MODE": "token"}, "problem", "no token"),
        ({"RAY_AUTH_MODE": "tokn"}, "problem", "RAY_AUTH_MODE=tokn"),
        ({"RAY_AUTH_TOKEN": "secret"}, "warning", "RAY_AUTH_MODE not set"),
        ({"RAY_AUTH_TOKEN_PATH": "/nosuch/file"}, "problem", "/nosuch/file"),
    ],
)
def test_mode_and_token_must_fit(home, variables, state, message):
    finding = only(doctor._token(home | variables))
    assert finding.state == state
    assert message in finding.found
    assert "secret" not in finding.found + finding.fix
    assert bool(finding.fix) == (state != "ok")


def test_the_address_of_a_cluster_that_has_gone_is_found_in_file_and_variable(home, tmp_path):
    file = tmp_path / "tmp" / "ray" / "ray_current_cluster"
    file.parent.mkdir(parents=True)
    gone = f"127.0.0.1:{free_port()}"
    file.write_text(gone)
    findings = list(doctor._addresses(home | {"RAY_ADDRESS": gone}))
    assert states(findings) == {"recorded cluster": "warning", "address": "problem"}
    assert findings[0].fix == f"rm {file}"
    with socket.create_server(("127.0.0.1", 0)) as server:
        alive = f"127.0.0.1:{server.getsockname()[1]}"
        file.write_text(alive)
        assert list(doctor._addresses(home | {"RAY_ADDRESS": alive})) == []
        assert list(doctor._addresses(home | {"RAY_API_SERVER_ADDRESS": f"http://{alive}"})) == []


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="/proc is where nobody may write")
def test_a_folder_that_cannot_be_written_is_a_problem(tmp_path):
    assert only(doctor._storage(tmp_path / "new" / "runs")).state in ("ok", "warning")
    assert only(doctor._storage(doctor.Path("/proc/self/runs"))).state == "problem"


def test_the_list_of_what_a_job_needs_is_that_of_the_distribution():
    needed = {
        doctor.Requirement(text).name.lower()
        for text in importlib.metadata.requires("rlcar")
        if "extra ==" not in text or "extra == 'cluster'" in text
    }
    assert set(doctor._IMPORTED) == needed


def test_shared_memory_is_measured_where_it_is(tmp_path):
    assert list(doctor._shared_memory(tmp_path / "nosuch")) == []
    assert only(doctor._shared_memory(tmp_path)).check == "shared memory"


def test_only_a_problem_makes_the_doctor_fail():
    assert not doctor.has_problem([Finding("a", "ok", ""), Finding("b", "warning", "")])
    assert doctor.has_problem([Finding("a", "ok", ""), Finding("b", "problem", "")])
