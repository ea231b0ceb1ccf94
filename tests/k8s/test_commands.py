"""Every `rlcar …` of a manifest is a command line that the program accepts."""

import re
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml

from cluster.jobs.kubernetes.manifest import entrypoint_of
from rlcar.campaigns.config import load_campaign
from serve.lanes.ray_serve import ENVIRONMENT
from serve.settings import make_settings
from tests.k8s.manifests import K8S, OVERLAYS, needs_kustomize, of_kind, pods, rendered
from tests.support.command_line import parse

_SHELL = re.compile(r"\$\(date [^)]*\)")  # the submitting pod's shell evaluates these
_CONTAINER_COMMANDS = ("redis",)  # other images


def _environment(container, objects):
    data = {one["metadata"]["name"]: one["data"] for one in of_kind(objects, "ConfigMap")}
    found = {}
    for variable in container.get("env", []):
        source = variable.get("valueFrom", {})
        if "configMapKeyRef" in source:
            reference = source["configMapKeyRef"]
            found[variable["name"]] = data[reference["name"]][reference["key"]]
        else:  # an index or a name, which are known only in the cluster
            found[variable["name"]] = variable.get("value", "7")
    return found


def _expanded(word, variables):
    return re.sub(r"\$\((\w+)\)", lambda match: variables[match[1]], word)


def _command_lines(overlay):
    objects = rendered(overlay)
    for pod in pods(objects):
        for container in pod.spec["containers"]:
            if pod.role != "pod" or container["name"] in _CONTAINER_COMMANDS:
                continue
            assert "command" not in container, "the image's entrypoint passes signals on"
            variables = _environment(container, objects)
            yield pod.owner, [_expanded(word, variables) for word in container["args"]]
    for job in of_kind(objects, "RayJob"):
        yield job["metadata"]["name"], _entrypoint(job["spec"])
    for job in of_kind(objects, "RayCronJob"):
        yield job["metadata"]["name"], _entrypoint(job["spec"]["jobTemplate"])


def _entrypoint(spec):
    program, *words = shlex.split(_SHELL.sub("2026-11-30", spec["entrypoint"]))
    assert program == "rlcar"
    return words


@needs_kustomize
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_command_line_parses(overlay):
    found = {owner: parse(words) for owner, words in _command_lines(overlay)}
    assert found["CronJob rlcar-backup"]
    for owner, words in _command_lines(overlay):
        with pytest.raises(Exception, match=r"(?i)no such option|unexpected"):
            parse([*words, "--no-such-option"])
        if words[0] == "train":
            assert words[words.index("--resume") + 1] == "auto", owner
            assert "--name" in words, f"{owner}: a retry must find the run"


@needs_kustomize
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_folders_of_command_lines_are_mounted(overlay):
    objects = rendered(overlay)
    lines = dict(_command_lines(overlay))
    for pod in pods(objects):
        owner = pod.owner.partition(" ")[2].partition(",")[0] if pod.role == "head" else pod.owner
        if pod.role not in ("head", "pod") or owner not in lines:
            continue
        mounts = [mount["mountPath"] for mount in pod.spec["containers"][0]["volumeMounts"]]
        for word in lines[owner]:
            if word.startswith("/"):
                assert any(word.startswith(mount) for mount in mounts), f"{owner}: {word}"


@needs_kustomize
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_nightly_backup_copies_every_folder_that_pods_write_to(overlay):
    lines = dict(_command_lines(overlay))
    backup = lines["CronJob rlcar-backup"]
    copied = [backup[backup.index(option) + 1] for option in ("--runs", "--registry", "--data")]
    for pod in pods(rendered(overlay)):
        claims = {
            volume["name"]: volume["persistentVolumeClaim"]["claimName"]
            for volume in pod.spec.get("volumes", [])
            if "persistentVolumeClaim" in volume
        }
        for container in pod.spec["containers"]:
            for mount in container["volumeMounts"]:
                claim = claims.get(mount["name"], "rlcar-backup")
                if claim != "rlcar-backup" and not mount.get("readOnly"):
                    assert mount["mountPath"] in copied, f"{pod.owner}: {claim}"
    # Sweeps lie on these volumes too, wherever they come from.
    folders = [
        words[words.index("--sweeps") + 1] for words in lines.values() if "--sweeps" in words
    ]
    entrypoint = shlex.split(entrypoint_of(["tune", "sweep.yaml"], "sweep"))
    for folder in [*folders, entrypoint[entrypoint.index("--sweeps") + 1]]:
        assert any(folder.startswith(f"{one}/") for one in copied), folder


@needs_kustomize
@pytest.mark.parametrize("overlay", ["serve-ray", "serve-ray-upgrade"])
def test_the_ray_serve_lane_is_set_as_the_code_sets_it(overlay):
    (service,) = of_kind(rendered(overlay), "RayService")
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    (application,) = config["applications"]
    settings = make_settings(**application["args"])
    assert settings.host_names is None, "requests come with the name of the Ingress"
    assert settings.auth
    for pod in pods([service]):
        container = pod.spec["containers"][0]
        variables = {one["name"]: one.get("value") for one in container["env"]}
        assert ENVIRONMENT.items() <= variables.items(), pod.owner
        if pod.role == "worker":
            mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
            for path in (settings.registry, str(settings.tokens)):
                assert any(path.startswith(mount) for mount in mounts)


def test_the_campaign_is_valid_and_fits_its_cluster():
    campaign = load_campaign(K8S / "overlays" / "campaign" / "campaign.yaml")
    assert all(job.address == "auto" for job in campaign.jobs)
    if not (objects := rendered("campaign")):
        return
    (job,) = of_kind(objects, "RayJob")
    groups = {
        group["groupName"]: group for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    }
    cores = {
        name: group["replicas"]
        * int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
        for name, group in groups.items()
    }
    assert campaign.slots * max(one.simulators for one in campaign.jobs) <= cores["sim"]
    assert campaign.slots <= cores["learner"]
    environment = yaml.safe_load(job["spec"]["runtimeEnvYAML"])["env_vars"]
    assert int(environment["RAY_JOB_STOP_WAIT_TIME_S"]) > campaign.stop_within_s


_PROGRAM = """
import pathlib, signal, sys, time
name = pathlib.Path(sys.argv[-1])
def stop(number, frame):
    time.sleep(1.0)
    name.write_text("saved")
    raise SystemExit
signal.signal(signal.SIGTERM, stop)
name.with_suffix(".up").touch()
time.sleep(60)
"""
_OWN_PROCESSES = ["unshare", "--pid", "--fork", "--mount-proc"]


def _can_unshare():
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*_OWN_PROCESSES, "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not _can_unshare(), reason="needs a process namespace of its own (root)")
@pytest.mark.parametrize(
    ("running", "stopped"),
    [
        (["train", "serve"], ["train"]),
        # The trainings of a campaign are stopped by the campaign.
        (["train", "campaign"], ["campaign"]),
        (["train", "tune"], ["tune"]),
        ([], []),
    ],
)
def test_the_head_s_hook_stops_the_driver_alone_and_waits_for_it(tmp_path, running, stopped):
    job = yaml.safe_load((K8S / "base" / "rayjob-train.yaml").read_text())
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    shell, option, hook = head["lifecycle"]["preStop"]["exec"]["command"]
    program = tmp_path / "rlcar"
    program.write_text(_PROGRAM)
    starts = "\n".join(
        f"{sys.executable} {program} {verb} --name x {tmp_path / verb} &" for verb in running
    )
    waits = "\n".join(
        f"while [ ! -e {tmp_path / verb}.up ]; do sleep 0.1; done" for verb in running
    )
    # As Ray's job supervisor does, a shell starts the driver.
    script = f"{starts}\n{waits}\n{shlex.join([shell, option, hook])}\nls {tmp_path}\n"
    done = subprocess.run(
        [*_OWN_PROCESSES, "/bin/sh", "-c", script], capture_output=True, text=True, timeout=120
    )
    names = set(done.stdout.split()) & {"train", "campaign", "tune", "serve"}
    assert names == set(stopped), done.stderr
    assert done.stderr == ""
