"""What needs no server: the object, statuses, lines of logs, pauses."""

import pytest

from cluster.jobs.kubernetes.lines import LogCursor, RepeatedOutput, read_line
from cluster.jobs.kubernetes.manifest import JobOptions, build, entrypoint_of, read_base
from cluster.jobs.kubernetes.retries import Patience, pause_s, read_retry_after
from cluster.jobs.kubernetes.status import exit_code, failure_of, problem_of_pod, state_of
from rlcar.errors import UserError


def options(**changes):
    return JobOptions("job", "space", ("train",))._replace(**changes)


def test_a_training_continues_its_own_run_and_follows_the_workers():
    assert entrypoint_of(["train", "--mode", "test"], "job") == (
        "rlcar train --mode test --address auto --runs /var/lib/rlcar/runs --name job "
        "--resume auto --simulators auto"
    )
    kept = entrypoint_of(["train", "--name", "a b", "--runs=/r", "--publish"], "job")
    assert "--name 'a b'" in kept
    assert "--runs=/r" in kept
    assert kept.endswith("--registry /var/lib/rlcar/models")
    assert entrypoint_of(["evaluate", "runs/x"], "job") == "rlcar evaluate runs/x"
    with pytest.raises(UserError, match="leave it out"):
        entrypoint_of(["train", "--address", "x"], "job")


def test_options_reach_every_pod_and_leave_the_base_alone():
    base = read_base()
    changes = {"image": "r.io/rlcar@sha256:" + "0" * 64, "priority_class": "high", "workers": 100}
    job = build(base, options(runs_claim="other", gpus=2, **changes))
    spec = job["spec"]
    cluster = spec["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    pods = [group["template"]["spec"] for group in groups] + [spec["submitterPodTemplate"]["spec"]]
    assert {pod["containers"][0]["image"] for pod in pods} == {changes["image"]}
    assert {pod["priorityClassName"] for pod in pods} == {"high"}
    assert {
        volume["persistentVolumeClaim"]["claimName"]
        for pod in pods
        for volume in pod.get("volumes", [])
        if volume["name"] == "runs"
    } == {"other"}
    learner, sim = cluster["workerGroupSpecs"]
    assert (
        learner["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 2
    )
    assert (sim["replicas"], sim["maxReplicas"]) == (100, 100)
    assert base == read_base()


@pytest.mark.parametrize(
    ("status", "state", "code", "why"),
    [
        ({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, "succeeded", 0, ""),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, "stopped", 130, ""),
        (
            {"jobDeploymentStatus": "Failed", "message": "failed with exit code 3, last logs"},
            "failed",
            3,
            "",
        ),
        (
            {"jobDeploymentStatus": "Failed", "reason": "DeadlineExceeded"},
            "failed",
            1,
            "longer than activeDeadlineSeconds",
        ),
        (
            {"jobDeploymentStatus": "ValidationFailed", "message": "no head"},
            "refused",
            1,
            "KubeRay refuses the RayJob: no head",
        ),
        ({"jobDeploymentStatus": "Retrying"}, "retrying", 1, ""),
        ({}, "created", 1, ""),
    ],
)
def test_a_status_in_words(status, state, code, why):
    job = {"metadata": {"name": "job"}, "status": status}
    assert (state_of(job), exit_code(job)) == (state, code)
    assert why in failure_of(job)
    assert bool(why) == bool(failure_of(job))


@pytest.mark.parametrize("deployment", [None, "Initializing", "Suspending", "Suspended"])
def test_a_job_that_waits_in_a_queue_is_queued_from_the_beginning(deployment):
    metadata = {"name": "job", "labels": {"kueue.x-k8s.io/queue-name": "night"}}
    job = {"metadata": metadata, "spec": {"suspend": True}}
    assert state_of(job | {"status": {"jobDeploymentStatus": deployment}}) == "queued"
    # Kueue takes the quota of a running job away: its pods still save and end.
    status = {"jobDeploymentStatus": "Suspending", "jobStatus": "RUNNING"}
    assert state_of(job | {"status": status}) == "suspending"


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("0/3 nodes are available: 3 Insufficient nvidia.com/gpu.", "no node has a free GPU for a"),
        ('persistentvolumeclaim "rlcar-runs" not found', "volume claim rlcar-runs does not exist"),
        ("pod has unbound immediate PersistentVolumeClaims", "a volume claim is not bound"),
        ("1 node(s) had volume node affinity conflict", "cannot be reached from enough nodes"),
        ("0/3 nodes are available: 3 Insufficient cpu.", "finds no node (0/3 nodes are available"),
    ],
)
def test_a_pod_that_finds_no_node_says_why(message, text):
    condition = {"type": "PodScheduled", "status": "False", "message": message}
    assert text in problem_of_pod({"status": {"conditions": [condition]}})


def lines(*texts):
    return [read_line(f"2026-11-30T02:00:{text}") for text in texts]


def new(cursor, found):
    return [line.text for line in found if cursor.is_new(line)]


def test_lines_of_the_resumed_second_are_not_repeated_and_equal_ones_are_counted():
    cursor = LogCursor()
    assert cursor.since is None
    first = lines("01.1Z a", "02.5Z same", "02.5Z same", "02.7Z b")
    assert new(cursor, first) == ["a", "same", "same", "b"]
    assert cursor.since == "2026-11-30T02:00:02Z"
    cursor.resume()
    again = lines("02.5Z same", "02.5Z same", "02.7Z b", "02.7Z b", "02.6Z late", "03Z c")
    assert new(cursor, again) == ["b", "late", "c"]
    assert not cursor.has_gap()


def test_a_log_without_the_last_line_has_a_gap():
    cursor = LogCursor()
    new(cursor, lines("01.1Z a"))
    cursor.resume()
    assert new(cursor, lines("09Z z")) == ["z"]
    assert cursor.has_gap()
    assert not cursor.has_gap()


@pytest.mark.parametrize("text", ["", "no timestamp", "2026-11-30 text"])
def test_what_the_kubelet_itself_writes_is_no_line(text):
    assert read_line(text) is None


def test_fractions_of_any_length_are_read():
    assert read_line("1970-01-01T00:00:01.5Z x").time_ns == 1_500_000_000
    assert read_line("1970-01-01T01:00:01.000000001+01:00 x").time_ns == 1_000_000_001


def test_a_replaced_submitter_repeats_nothing():
    output = RepeatedOutput()
    output.start_again()
    assert all(output.is_new(text) for text in ["a", "b", "b", "c"])
    output.start_again()
    shown = [text for text in ["waiting", "a", "b", "b", "c", "d", "a"] if output.is_new(text)]
    assert shown == ["waiting", "d", "a"]


def shown_by(output, texts):
    output.start_again()
    return [text for text in texts if output.is_new(text)]


@pytest.mark.parametrize("first", [0, 1, 2, 601, 998, 999])
def test_a_replaced_submitter_whose_log_begins_later_repeats_and_loses_nothing(first):
    output = RepeatedOutput()
    written = [text for i in range(1000) for text in (f"step {i}", "", "saved")]
    assert shown_by(output, written[:3000]) == written
    further = ["", "saved", "step 1000", "", "saved"]
    assert shown_by(output, ["Waiting", "Waiting", *written[first:], *further]) == [
        *("Waiting", "Waiting"),
        *further,
    ]
    assert not output.has_lost_track()


def test_each_further_submitter_continues_where_the_last_one_ended():
    output = RepeatedOutput()
    steps = [f"step {i}" for i in range(900)]
    # A submitter that loses its connection to the cluster ends with lines of its own.
    assert shown_by(output, ["submitted", *steps[:300], "lost", ""])[1:-2] == steps[:300]
    assert shown_by(output, [*steps[:600], "lost too"]) == [*steps[300:600], "lost too"]
    # One that begins with the same lines has not repeated the output in between.
    assert shown_by(output, ["lost too", "lost", *steps]) == steps[600:]
    assert not output.has_lost_track()


def test_output_without_a_line_that_occurs_once_is_counted():
    output = RepeatedOutput()
    assert shown_by(output, ["same"] * 3) == ["same"] * 3
    assert shown_by(output, ["same"] * 5) == ["same"] * 2


def test_a_log_that_begins_after_all_that_was_shown_is_announced_once():
    output = RepeatedOutput()
    shown_by(output, [f"step {i}" for i in range(500)])
    later = [f"step {i}" for i in range(900, 1300)]
    assert shown_by(output, later) == later
    assert output.has_lost_track()
    assert not output.has_lost_track()


def test_pauses_grow_to_a_limit_and_obey_the_server():
    patience = Patience(first_pause_s=1.0, longest_pause_s=8.0)
    for attempt, most_s in enumerate((1.0, 2.0, 4.0, 8.0, 8.0)):
        assert most_s / 2 <= pause_s(patience, attempt) <= most_s
    assert pause_s(patience, 0, 30.0) == 30.0
    assert pause_s(patience, 10_000) <= 8.0
    assert read_retry_after("7") == 7.0
    assert read_retry_after("1e9") == 60.0
    assert read_retry_after("Thu, 01 Jan 1970 00:00:00 GMT") == 0.0
    for text in (None, "", "soon", "nan"):
        assert read_retry_after(text) is None
