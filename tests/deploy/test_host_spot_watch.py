"""A notice of the cloud runs the command once; anything else does not."""

import http.server
import json
import subprocess
import sys
import threading
import time

import pytest

from tests.support.installed_host import ROOT
from tests.support.waiting import wait_until

WATCH = ROOT / "deploy" / "host" / "spot-watch"


class Metadata(http.server.BaseHTTPRequestHandler):
    """Answers as the metadata service of `server.cloud` does; `server.notice` is announced."""

    def log_message(self, *arguments):
        """Keeps the output of the tests readable."""

    def _answer(self, status, text=""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_PUT(self):  # noqa: N802
        has_ttl = "X-aws-ec2-metadata-token-ttl-seconds" in self.headers
        is_token = self.server.cloud == "aws" and self.path == "/latest/api/token" and has_ttl
        self.server.tokens += is_token
        self._answer(200, f"token-{self.server.tokens}") if is_token else self._answer(400)

    def do_GET(self):  # noqa: N802
        self.server.looks += 1
        status, text = getattr(self, f"_{self.server.cloud}")()
        self._answer(status, text)

    def _aws(self):
        # IMDSv2: without the newest token nothing is said.
        if self.headers["X-aws-ec2-metadata-token"] != f"token-{self.server.tokens}":
            return 401, ""
        if self.path != "/latest/meta-data/spot/instance-action" or not self.server.notice:
            return 404, ""
        return 200, json.dumps({"action": "terminate", "time": "2026-11-30T02:30:00Z"})

    def _none(self):
        return 503, ""

    def _google(self):
        if self.headers["Metadata-Flavor"] != "Google":
            return 403, ""
        answers = {
            "preempted": "TRUE" if self.server.notice else "FALSE",
            "maintenance-event": "MIGRATE_ON_HOST_MAINTENANCE",  # of no interest: it goes on
        }
        text = answers.get(self.path.removeprefix("/computeMetadata/v1/instance/"))
        return (404, "") if text is None else (200, text)

    def _azure(self):
        if self.headers["Metadata"] != "true":
            return 400, ""
        if not self.path.startswith("/metadata/scheduledevents?api-version="):
            return 404, ""
        kind = "Preempt" if self.server.notice else "Freeze"  # a freeze of seconds ends nothing
        return 200, json.dumps({"DocumentIncarnation": 1, "Events": [{"EventType": kind}]})


@pytest.fixture
def metadata():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    server.cloud, server.notice, server.tokens, server.looks = "aws", False, 0, 0
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def watch(metadata, *command, cloud="auto", poll_s=0.1, find_s=0.0):
    address = f"http://127.0.0.1:{metadata.server_address[1]}"
    options = ["--cloud", cloud, "--poll-s", str(poll_s), "--find-s", str(find_s)]
    options += ["--address", address, "--", *command]
    return subprocess.Popen(
        [sys.executable, "-I", WATCH, *options], stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("cloud", ["aws", "google", "azure"])
def test_the_command_runs_once_when_the_notice_comes(metadata, tmp_path, cloud):
    metadata.cloud = cloud
    done = tmp_path / "stopped"
    process = watch(metadata, "sh", "-c", f"echo stop >> {done}; exit 3")
    wait_until(lambda: metadata.looks > 6)
    assert process.poll() is None
    assert not done.exists()
    metadata.notice = True
    told_s = time.monotonic()
    stderr = process.communicate(timeout=60)[1]
    assert time.monotonic() - told_s < 20  # of 30 s
    assert process.returncode == 3  # the command's own
    assert done.read_text() == "stop\n"
    assert f"watching {cloud} every 0.1 s" in stderr
    assert f"{cloud} takes this host back (" in stderr


def test_a_token_that_has_become_invalid_is_renewed(metadata):
    process = watch(metadata, "true", cloud="aws")
    wait_until(lambda: metadata.looks > 2)
    metadata.tokens += 1  # what the watcher holds is refused from now on
    wait_until(lambda: metadata.tokens > 2)
    metadata.notice = True
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 0
    assert "answers 401; asking again every 0.1 s" in stderr
    assert "the metadata service answers again" in stderr


def test_a_host_outside_of_the_clouds_is_left_alone(metadata):
    metadata.cloud = "google"
    metadata.server_close()
    process = watch(metadata, "false")
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 0
    assert stderr.startswith("spot-watch: no metadata service of AWS, Google or Azure answers at ")


def test_a_metadata_service_that_is_late_after_the_boot_is_found(metadata, tmp_path):
    metadata.cloud = "none"
    process = watch(metadata, "sh", "-c", "exit 3", find_s=300)
    wait_until(lambda: metadata.looks > 3)
    assert process.poll() is None
    metadata.cloud, metadata.notice = "aws", True
    process.communicate(timeout=60)
    assert process.returncode == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--poll-s", "nan", "--", "true"], "--poll-s"),
        (["--poll-s", "0", "--", "true"], "--poll-s"),
        (["--cloud", "ibm", "--", "true"], "--cloud"),
        ([], "command"),
    ],
)
def test_a_wrong_option_is_refused(arguments, message):
    done = subprocess.run(
        [sys.executable, "-I", WATCH, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]


def test_a_command_that_does_not_exist_is_one_sentence(metadata):
    metadata.notice = True
    process = watch(metadata, "/no/such/program", cloud="aws")
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 127
    assert stderr.endswith("cannot run /no/such/program: No such file or directory\n")
