"""`rlcar watch` as a person starts and stops it."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from benchmarks.processes import program
from rlcar.cli.watch import watch
from rlcar.errors import UserError
from tests.serve.live.live_page import save_run
from tests.serve.served import publish
from tests.support.waiting import wait_until

RLCAR = str(Path(sys.executable).with_name("rlcar"))


def test_the_newest_run_is_shown_until_ctrl_c(tmp_path):
    save_run(tmp_path / "runs" / "begun")
    command = [RLCAR, "watch", "latest", "--port", "0"]
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with program(command, cwd=tmp_path, **pipes) as process:
        address = re.search(r"the page: (\S+)", process.stderr.readline())[1]
        assert "rlcar" in httpx.get(address).text
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert "Traceback" not in errors
    assert not (tmp_path / "models").exists()


def test_the_policy_server_shows_its_champion_on_the_page(tmp_path):
    publish(tmp_path / "models", 1)
    command = [RLCAR, "serve", "--lane", "realtime", "--page", "--port", "0"]
    with program(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        address = None
        while address is None:
            line = process.stderr.readline()
            assert line, "it ended"
            address = re.search(r"the page: (\S+)", line)
        with httpx.Client(base_url=address[1]) as web:
            wait_until(lambda: web.get("/health/ready").status_code == 200)
            assert web.get("/").text.startswith("<!doctype html>")
            assert web.post("/try", json={"observation": [0.5] * 6}).json()["policy"] == "version 1"
        process.send_signal(signal.SIGINT)
        assert "Traceback" not in process.communicate(timeout=30)[1]


def test_mistakes_are_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="there is no run below runs yet"):
        watch("latest")
    with pytest.raises(UserError, match="nothing is not a run"):
        watch("nothing")
    save_run(tmp_path / "runs" / "begun")
    with pytest.raises(UserError, match="can be reached from other machines"):
        watch("latest", host="0.0.0.0")
