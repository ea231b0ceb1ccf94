"""`rlcar campaign status|pause|resume|slots|retry`: a campaign as other terminals see it."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rlcar.campaigns import commands
from rlcar.campaigns.campaign import CampaignRun
from rlcar.campaigns.config import Campaign
from rlcar.campaigns.pictures import draw_campaign
from rlcar.campaigns.scheduler import Span
from rlcar.system.journal import Journal
from rlcar.system.process_state import identity

ROOT = Path(__file__).parents[2]
RUNS = Path("runs")
_HOLDER = """
import sys
from pathlib import Path
from rlcar.system.lease import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""
JOBS = [{"name": name, "mode": "test", "local": True} for name in ("pong", "boxing")]


@pytest.fixture
def campaign(rlcar):
    """A campaign that was begun, whose job boxing has failed; no process of it runs."""
    run = CampaignRun(Campaign.model_validate({"slots": 2, "jobs": JOBS}), RUNS, "night.yaml")
    run._note("failed", run.jobs[1], failure=None)
    for _ in range(5):
        run._note("failed", run.jobs[1], failure=None)
    run.stop()
    return run


def sentence(rlcar, *arguments):
    code, _, error = rlcar("campaign", *arguments)
    assert code == 2
    (line,) = error.strip().splitlines()
    return line.removeprefix("error: ")


def test_status_shows_the_jobs_and_how_to_go_on_also_as_json(rlcar, campaign):
    code, said, _ = rlcar("campaign", "status")
    assert code == 0
    assert "stopped: 0 of 2 jobs done, 1 waiting, 1 failed; 2 slots" in said
    assert "rlcar campaign run night.yaml --runs runs" in " ".join(said.split())
    code, said, _ = rlcar("campaign", "status", "--json")
    jobs = {job["name"]: job for job in json.loads(said)["jobs"]}
    assert (jobs["boxing"]["state"], jobs["boxing"]["failures"]) == ("failed", 6)
    report = (RUNS / "_campaign/report.md").read_text()
    assert "| boxing | failed |" in report
    assert (RUNS / "_campaign/report.png").read_bytes().startswith(b"\x89PNG")


def test_a_campaign_whose_process_is_gone_is_dead(rlcar, campaign):
    path = RUNS / "_campaign/status.json"
    path.write_text(path.read_text().replace('"state": "stopped"', '"state": "running"'))
    said = rlcar("campaign", "status")[1]
    assert "dead: 0 of 2 jobs done" in said
    assert "has ended without saying why" in " ".join(said.split())


def test_commands_wait_for_the_campaign_and_count_once(rlcar, campaign):
    for words in (["slots", "3"], ["pause"], ["retry", "boxing"]):
        code, _, said = rlcar("campaign", *words)
        assert code == 0
        assert "noted: no process runs this campaign at the moment" in said
    again = CampaignRun(Campaign.model_validate({"slots": 2, "jobs": JOBS}), RUNS)
    again.step()
    assert (again.slots, again.is_paused) == (3, True)
    assert [one.state for one in again.jobs] == ["waiting", "waiting"]
    assert commands.waiting(again.folder) == []
    # A campaign that died after the entry and before it deleted the file carries nothing out again.
    name = commands.give(again.folder, commands.Command("resume"))
    again._note("resumed", command=name)
    again._note("paused")
    again.step()
    assert again.is_paused


def test_mistakes_are_one_sentence_each(rlcar, campaign):
    assert sentence(rlcar, "status", "--runs", "elsewhere").startswith(
        "there is no campaign in elsewhere: start one with rlcar campaign run FILE"
    )
    assert sentence(rlcar, "retry", "pung") == (
        "the campaign in runs has no job 'pung'; did you mean 'pong'?"
    )
    assert sentence(rlcar, "retry", "pong").startswith("job pong has not failed, it is waiting")
    for count in ("0", "x", "-1", "9" * 40):
        assert "give a number from 1 to 65,536" in sentence(rlcar, "slots", "--", count)


def test_a_second_campaign_on_a_folder_is_refused(rlcar, campaign):
    Path("night.yaml").write_text(yaml.safe_dump({"jobs": JOBS}))
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, RUNS / "_campaign"],
        cwd=Path.cwd(),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout.readline() == b"held\n"
        said = sentence(rlcar, "run", "night.yaml")
        other.communicate(b"\n")
    assert said.startswith(f"a campaign runs in runs already (process {other.pid} on ")


def test_an_edited_journal_is_refused_with_what_to_do(rlcar, campaign):
    path = RUNS / "_campaign/journal.jsonl"
    path.write_text(path.read_text().replace('"slots": 2', '"slots": 9'))
    Path("night.yaml").write_text(yaml.safe_dump({"jobs": JOBS}))
    said = sentence(rlcar, "run", "night.yaml")
    assert said.startswith("line 1 of the journal runs/_campaign/journal.jsonl does not match")
    assert "or move runs/_campaign elsewhere: the runs in runs continue from" in said


def test_a_journal_of_another_version_is_refused_with_what_to_do(rlcar, campaign):
    Journal(RUNS / "_campaign/journal.jsonl").append({"kind": "began", "at_unix_s": 1.0, "x": 2})
    Path("night.yaml").write_text(yaml.safe_dump({"jobs": JOBS}))
    said = sentence(rlcar, "run", "night.yaml")
    assert "was written by another version of rlcar: continue with that version" in said
    assert "or move runs/_campaign elsewhere" in said


def test_the_process_of_a_job_that_the_file_has_no_longer_is_asked_to_stop(campaign):
    with subprocess.Popen(["sleep", "600"]) as process:
        campaign._note("started", campaign.jobs[0], slot=0, process=identity(process.pid))
        CampaignRun(Campaign.model_validate({"jobs": JOBS[1:]}), RUNS)
        assert process.wait(10) == -signal.SIGTERM


def test_a_number_of_slots_that_no_machine_has_is_not_taken_over(campaign):
    commands.give(campaign.folder, commands.Command("slots", slots=10**9))
    assert commands.waiting(campaign.folder) == []


def test_a_report_can_be_drawn_whatever_the_number_of_jobs_and_slots(tmp_path):
    jobs = [{"name": f"job-{index}", "mode": "test", "local": True} for index in range(70)]
    run = CampaignRun(Campaign.model_validate({"slots": 65_536, "jobs": jobs}), tmp_path)
    now = run.snapshot()
    spans = [Span(f"job-{index}", index, now.at_unix_s - 9.0, None) for index in range(70)]
    views = [dataclasses.replace(now.jobs[0], name=f"job-{index}") for index in range(5000)]
    draw_campaign(tmp_path / "many.png", dataclasses.replace(now, jobs=views, spans=spans))
    assert (tmp_path / "many.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def ssh(tmp_path, monkeypatch):
    """A program ssh that ends like the real one; it notes its arguments."""

    def install(text):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        program = folder / "ssh"
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/words\n{text}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        return tmp_path / "words"

    return install


def test_a_host_runs_the_command_and_no_word_of_it_is_read_by_its_shell(rlcar, ssh):
    words = ssh('for last; do :; done; sh -c "set -- $last; echo \\"\\$@\\"" > there')
    name = "a job; touch hacked"
    code, _, _ = rlcar("campaign", "retry", name, "--runs", "/data/my runs", "--host", "me@box")
    assert code == 0
    assert Path("there").read_text() == f"rlcar campaign retry {name} --runs /data/my runs\n"
    assert words.read_text().splitlines()[-2:] == [
        *("me@box", "rlcar campaign retry 'a job; touch hacked' --runs '/data/my runs'")
    ]
    assert not Path("hacked").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "echo 'ssh: connect to host box port 22: Connection refused' >&2; exit 255",
            "box refuses SSH: start its SSH server (systemctl start ssh)",
        ),
        (
            "echo 'me@box: Permission denied (publickey).' >&2; exit 255",
            "box accepts none of this machine's keys: add the public key to the host (ssh-copy-id "
            "box)",
        ),
        (
            "for last; do :; done; case $last in -s) exit 0 ;; *) exit 255 ;; esac",
            "the connection to box was lost: repeat the command",
        ),
        ("exit 127", "box has no program rlcar: name it with --remote-program"),
    ],
)
def test_a_host_that_refuses_is_one_sentence(rlcar, ssh, text, said):
    ssh(text)
    assert sentence(rlcar, "status", "--host", "box").startswith(said)
    assert sentence(rlcar, "status", "--host", "-oProxyCommand=x").endswith(
        "is not the name of a host"
    )
