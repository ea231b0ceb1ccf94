"""Following a job: its output without a gap or a repeated line, whatever happens in between."""

import contextlib
import threading

import pytest

from cluster.jobs.kubernetes.api import Api
from cluster.jobs.kubernetes.connect import Connection, Target
from cluster.jobs.kubernetes.follow import Follower
from cluster.jobs.kubernetes.paths import PODS, RAY_JOBS
from cluster.jobs.kubernetes.retries import Patience
from cluster.jobs.kubernetes.status import exit_code, is_over
from rlcar.errors import UserError
from tests.support.kubernetes.server import Fault

pytestmark = pytest.mark.kubernetes_client


@pytest.fixture(autouse=True)
def _simulated(kube):
    if not kube.can_write_logs:
        pytest.skip("the pods of this cluster are real: set RLCAR_KUBERNETES_LOGS")


class Following:
    """Follows a job in a thread, and keeps what it shows and says."""

    def __init__(self, kube, name, kubeconfig=None, **options):
        self.shown, self.said, self.job, self.error = [], [], None, None
        target = Target(str(kubeconfig or kube.kubeconfig), None, kube.namespace)
        api = Api(Connection(target), Patience(attempts=1))
        options = {"most_lost_s": 60.0, "silence_s": 3.0} | options
        self._follower = Follower(api, name, self.shown.append, self.said.append, **options)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            self.job = self._follower.run()
        except UserError as error:
            self.error = error

    def end(self):
        self._thread.join(120)
        assert not self._thread.is_alive()
        if self.error:
            raise self.error
        return self.job

    @property
    def lines(self):
        return "".join(self.shown).split("\n")[:-1]


def start(rlcar, kube, name, *options):
    words = ["--name", name, "--image", "rlcar:1", "--detach", *options]
    code, out, err = rlcar("submit", *kube.submit_options, *words, "--", "train")
    assert code == 0, err
    return kube.submitter(name)


def test_the_output_is_shown_until_the_job_ends(rlcar, kube):
    pod = start(rlcar, kube, "shown", "--retries", "0")
    kube.print_lines(pod, ["before", "", "equal", "equal"])
    following = Following(kube, "shown")
    kube.wait("the first lines", lambda: len(following.lines) == 4)
    kube.print_lines(pod, ["ü €", "last"])
    kube.end_pod(pod)
    job = following.end()
    assert following.lines == ["before", "", "equal", "equal", "ü €", "last"]
    assert exit_code(job) == 0, job["status"]


@pytest.mark.parametrize("is_silent", [False, True])
def test_a_lost_connection_costs_no_line_and_repeats_none(rlcar, kube, link, is_silent):
    pod = start(rlcar, kube, "lost", "--retries", "0")
    following = Following(kube, "lost", link.kubeconfig, silence_s=1.5)
    kube.print_lines(pod, [f"line {i}" for i in range(20)])
    kube.wait("the first lines", lambda: len(following.lines) == 20)
    link.cut(silent=is_silent)
    kube.print_lines(pod, [f"line {i}" for i in range(20, 40)])
    if not is_silent:
        kube.wait("the loss", lambda: following.said)
        assert following.said[0].startswith("connection lost, the job goes on: ")
    else:
        kube.wait("another attempt", lambda made=link.accepted: link.accepted > made)
    link.restore()
    kube.wait("all lines", lambda: len(following.lines) == 40)
    kube.print_lines(pod, ["line 40"])
    kube.end_pod(pod)
    following.end()
    assert following.lines == [f"line {i}" for i in range(41)]
    if not is_silent:
        (lost, back) = following.said
        assert back.startswith("connected again after ")


def test_a_connection_that_stays_lost_ends_the_following(rlcar, kube, link):
    pod = start(rlcar, kube, "gone")
    following = Following(kube, "gone", link.kubeconfig, most_lost_s=1.0)
    kube.print_lines(pod, ["line"])
    kube.wait("the line", lambda: following.lines)
    link.cut()
    with pytest.raises(
        UserError, match=r"gave up following gone .*\(--reconnect-s 1\); the job go"
    ):
        following.end()


def test_a_further_try_is_followed_too(rlcar, kube):
    first = start(rlcar, kube, "again", "--retries", "1")
    following = Following(kube, "again")
    kube.print_lines(first, ["first try"])
    kube.wait("the first line", lambda: following.lines)
    with contextlib.suppress(UserError):
        kube.end_pod(first, 1)
    kube.restart_submitter("again", first)
    second = kube.submitter("again", without=[first])
    kube.print_lines(second, ["second try"])
    kube.wait("the second line", lambda: "second try" in following.lines)
    kube.end_pod(second)
    following.end()
    assert following.lines == ["first try", "second try"]


def test_a_replaced_submitter_whose_log_begins_later_repeats_nothing(rlcar, kube):
    first = start(rlcar, kube, "moved")
    following = Following(kube, "moved")
    kube.print_lines(first, [text for i in range(600) for text in (f"line {i}", "")])
    kube.wait("the first lines", lambda: len(following.lines) == 1200)
    kube.restart_submitter("moved", first)
    second = kube.submitter("moved", without=[first])
    kube.print_lines(second, ["waiting"] + [t for i in range(400, 700) for t in (f"line {i}", "")])
    kube.wait("the last line", lambda: "line 699" in following.lines)
    kube.end_pod(second)
    following.end()
    expected = [text for i in range(700) for text in (f"line {i}", "")]
    expected.insert(1200, "waiting")
    assert following.lines == expected
    assert following.said == []


def test_a_failed_job_gives_its_exit_code(rlcar, kube, fake):
    pod = start(rlcar, kube, "failed", "--retries", "0")
    kube.print_lines(pod, ["no such file"])
    kube.end_pod(pod, 3)
    code, out, err = rlcar("jobs", "logs", "failed", *kube.options)
    assert (code, out) == (3, "no such file\n")
    assert err == "failed: failed\n"


def test_the_log_so_far_is_printed_once(rlcar, kube):
    pod = start(rlcar, kube, "once")
    kube.print_lines(pod, ["one", "two"])
    code, out, err = rlcar("jobs", "logs", "once", *kube.options, "--no-follow")
    assert (code, out, err) == (0, "one\ntwo\n", "")


def test_a_job_that_is_stopped_meanwhile_ends_the_following(rlcar, kube):
    pod = start(rlcar, kube, "stopped")
    kube.print_lines(pod, ["line"])
    following = Following(kube, "stopped")
    kube.wait("the line", lambda: following.lines)
    rlcar("jobs", "stop", "stopped", *kube.options)
    assert following.end() is None


def test_an_image_that_cannot_be_pulled_is_said_once(rlcar, kube):
    words = ["--name", "pull", "--image", "registry.test/missing/rlcar:1", "--detach"]
    rlcar("submit", *kube.submit_options, *words, "--", "train")
    following = Following(kube, "pull")
    kube.wait("the problem", lambda: any("cannot be pulled" in text for text in following.said))
    kube.api.delete(RAY_JOBS, "pull")
    following.end()
    (problem,) = [text for text in following.said if "cannot be pulled" in text]
    assert problem.startswith("image registry.test/missing/rlcar:1 cannot be pulled (")
    assert "check --image" in problem


def test_without_an_operator_following_ends(rlcar, kube, fake):
    fake.admission.append(lambda *_: None)
    job = {"metadata": {"name": "ignored"}, "spec": {}, "apiVersion": "ray.io/v1", "kind": "RayJob"}
    job["metadata"]["annotations"] = {"test": "no operator"}
    kube.pause_operator()
    kube.api.create(RAY_JOBS, job)
    with pytest.raises(UserError, match="KubeRay has not processed ignored after 0 s: its op"):
        Following(kube, "ignored", operator_s=0.2).end()


def test_old_versions_and_server_errors_are_survived(rlcar, kube, fake):
    pod = start(rlcar, kube, "survives", "--retries", "0")
    fake.store.compact()
    following = Following(kube, "survives")
    kube.print_lines(pod, ["line"])
    kube.wait("the line", lambda: following.lines)
    for code in (500, 503, 429):
        fake.faults.append(Fault("GET", "rayjobs", code, "", {"Retry-After": "0"}))
        fake.faults.append(Fault("GET", "/log", code, ""))
    kube.end_pod(pod)
    following.end()
    assert following.lines == ["line"]


def test_a_server_that_starts_may_refuse_what_it_allowed_before(rlcar, kube, fake):
    # Until it has read all roles, an API server answers 403.
    pod = start(rlcar, kube, "starts", "--retries", "0")
    following = Following(kube, "starts", silence_s=0.5)
    kube.print_lines(pod, ["line"])
    kube.wait("the line", lambda: following.lines)
    fake.faults += [Fault("GET", "/rayjobs/starts", code, "forbidden") for code in (403, 401, 401)]
    kube.wait("the refusal", lambda: following.said)
    kube.print_lines(pod, ["last"])
    kube.end_pod(pod)
    following.end()
    assert following.lines == ["line", "last"]
    (said,) = following.said
    assert said.startswith("what was allowed is refused now, trying for 30 s: ")


def test_rights_that_stay_refused_end_the_following(rlcar, kube, fake):
    pod = start(rlcar, kube, "revoked")
    following = Following(kube, "revoked", silence_s=0.5, refused_s=0.5)
    kube.print_lines(pod, ["line"])
    kube.wait("the line", lambda: following.lines)
    fake.faults += [Fault("GET", "/rayjobs/revoked", 403, "forbidden")] * 20
    with pytest.raises(UserError, match="forbids to get rayjobs.ray.io revoked"):
        following.end()


def test_the_log_of_an_ended_job_is_read_again_when_that_fails(rlcar, kube, fake):
    pod = start(rlcar, kube, "last", "--retries", "0")
    kube.print_lines(pod, ["line"])
    kube.end_pod(pod)
    kube.wait("the end", lambda: is_over(kube.api.get(RAY_JOBS, "last")))
    fake.faults.append(Fault("GET", "/log", 500, ""))
    following = Following(kube, "last")
    following.end()
    assert following.lines == ["line"]


def test_a_log_that_cannot_be_read_once_is_an_error(rlcar, kube, fake):
    kube.print_lines(start(rlcar, kube, "unreadable"), ["line"])
    fake.faults.append(Fault("GET", "/log", 500, ""))
    api = Api(Connection(Target(str(kube.kubeconfig), None, kube.namespace)), Patience(attempts=1))
    follower = Follower(api, "unreadable", print, print, most_lost_s=1.0)
    with pytest.raises(UserError, match="500"):
        follower.show_once()


def test_a_log_that_was_cut_off_by_the_node_is_announced(rlcar, kube, fake):
    pod = start(rlcar, kube, "rotated", "--retries", "0")
    following = Following(kube, "rotated", silence_s=0.5)
    kube.print_lines(pod, ["old"])
    kube.wait("the line", lambda: following.lines)
    lines = fake.logs[kube.namespace, pod, "ray-job-submitter"]
    lines[0] = "2999-01-01T00:00:00.000000000Z new"  # in place of what the node has deleted
    kube.wait("the gap", lambda: following.said)
    assert following.said == [
        "some lines were lost: the node keeps only the newest part of a long log"
    ]
    assert following.lines == ["old", "new"]
    assert kube.api.get(PODS, pod)["status"]["phase"] == "Running"
