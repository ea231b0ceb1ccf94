"""The commands of the runbooks work as written: on hosts, with compose and on Kubernetes."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlcar.config import make_config
from rlcar.runs.run import Run
from tests.deploy.monitoring.rules import ROOT, read
from tests.support.command_line import parse

RUNBOOKS = ROOT / "docs" / "runbooks"
PAGES = sorted(set(RUNBOOKS.glob("*.md")) - {RUNBOOKS / "index.md"})
# Programs of the image: Debian's essential packages, and what the Containerfile installs.
IN_THE_IMAGE = {"cat", "df", "find", "id", "ls", "python3", "rlcar", "sh", "tail", "wget"}
FUNCTIONS = ("rlcar", "inside", "training_logs", "server_logs", "server_get", "restart_server")
# Appends its name and its arguments to the file CALLS, separated by zero bytes, and a byte one.
STUB = """#!/bin/sh
printf '%s\\000' "${0##*/}" "$@" "$(printf '\\001')" >> "$CALLS"
"""


def blocks(page: Path) -> list[str]:
    return re.findall(r"```shell\n(.*?)```", page.read_text(), re.DOTALL)


# The blocks of `index.md` that prepare a shell, by the installation.
PREPARATIONS = dict(
    zip(("hosts", "compose", "Kubernetes"), blocks(RUNBOOKS / "index.md"), strict=False)
)


def commands() -> list[str]:
    """The lines of all pages that use a function of the prepared shell, without comments."""
    lines = [
        re.sub(r"\s+# .*", "", line)
        for page in PAGES
        for block in blocks(page)
        for line in block.splitlines()
        if line.split(" ")[0] in FUNCTIONS
    ]
    spans = [
        span
        for page in PAGES
        for span in re.findall(r"`([^`\n]+)`", page.read_text())
        if span.split(" ")[0] in FUNCTIONS[1:]
    ]
    return sorted({*lines, *spans})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_first_step_is_in_the_first_three_lines(page):
    title, empty, first, *_ = page.read_text().splitlines()
    assert title == f"# {page.stem}"
    assert empty == ""
    assert first.startswith("**First step** (in a [prepared shell](index.md#prepare-the-shell)): ")
    assert re.search(r"`[a-z]|dashboard \"rlcar: |decide ", first.partition(": ")[2])


@pytest.mark.parametrize("page", [*PAGES, RUNBOOKS / "index.md"], ids=lambda page: page.stem)
def test_every_block_is_a_valid_script(page):
    for block in blocks(page):
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def calls_of(preparation: str, folder: Path) -> list[list[str]]:
    """What the commands of all pages call in a shell that was prepared in this way."""
    for name in ("docker", "kubectl", "journalctl", "setpriv", "systemd-run", "curl", "systemctl"):
        stub = folder / name
        stub.write_text(STUB)
        stub.chmod(0o755)
    inside = (
        'inside() { command "$@" >/dev/null 2>&1; }\n' if '\ninside() { "$@"' in preparation else ""
    )
    script = f"{preparation}\n{inside}" + "\n".join(commands())
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "CALLS": str(folder / "calls"), "TOKEN": "T"}
    subprocess.run(
        ["bash"], input=script, text=True, env=environment, capture_output=True, cwd=folder
    )
    calls = (folder / "calls").read_text().split("\0\1\0")
    return [call.split("\0") for call in calls[:-1]]


def check_inside(words: list[str]) -> None:
    """What runs in a container is a program of the image, and `rlcar` accepts its words."""
    assert words[0] in IN_THE_IMAGE, words
    if words[0] == "rlcar":
        parse(words[1:])


def arguments_of(call: list[str]) -> list[str]:
    """The arguments for rlcar of a command that runs it on a host."""
    if call[0] == "setpriv":
        return call[call.index("run") + 1 :]
    return call[call.index("/opt/rlcar/current/bin/rlcar") + 1 :]


@pytest.mark.parametrize("program", ["systemd-run", "setpriv"])
def test_on_hosts_the_commands_name_units_and_programs_that_exist(program, tmp_path):
    booted = tmp_path if program == "systemd-run" else tmp_path / "absent"
    preparation = PREPARATIONS["hosts"].replace("/run/systemd/system", str(booted))
    calls = calls_of(preparation, tmp_path)
    units = {one.name for one in (ROOT / "deploy" / "systemd").iterdir()}
    used = {call[call.index("--unit") + 1] for call in calls if call[0] == "journalctl"}
    assert used == {"rlcar-serve", "rlcar-train@NAME"}
    assert all(f"{re.sub('@.*', '@', unit)}.service" in units for unit in used)
    rlcar = [call for call in calls if call[0] in ("setpriv", "systemd-run")]
    assert len(rlcar) > 8
    assert {call[0] for call in rlcar} == {program}
    for call in rlcar:
        parse(arguments_of(call))
    assert [
        "curl",
        "--silent",
        "--header",
        "Authorization: Bearer T",
        "http://127.0.0.1:8000/health/live",
    ] in calls


def test_rlcar_on_a_host_is_a_unit_with_the_settings_of_the_services(tmp_path):
    preparation = PREPARATIONS["hosts"].replace("/run/systemd/system", str(tmp_path))
    call = next(call for call in calls_of(preparation, tmp_path) if call[0] == "systemd-run")
    unit = call[call.index("--unit") + 1]
    (folder,) = (ROOT / "deploy" / "systemd").glob("rlcar-.service.d")
    prefix = folder.name.removesuffix(".service.d")
    assert unit.startswith(prefix)
    assert unit not in {one.stem for one in (ROOT / "deploy" / "systemd").glob("*.service")}
    settings = "".join(file.read_text() for file in folder.iterdir())
    for line in ("User=rlcar", "WorkingDirectory=/var/lib/rlcar", "LoadCredential=object-store:"):
        assert f"\n{line}" in settings
    writable = call[call.index("--property") + 1]
    assert writable in (ROOT / "deploy/systemd/rlcar-backup.service").read_text().splitlines()


def test_with_compose_the_commands_name_services_that_exist(tmp_path):
    calls = calls_of(PREPARATIONS["compose"], tmp_path)
    services = read(ROOT / "deploy" / "compose.yaml")["services"].keys()
    for call in calls:
        match call:
            case ["docker", "compose", "exec", "-T", service, *words]:
                check_inside(words)
            case ["docker", "compose", "logs", "--tail", "200", service]:
                pass
            case ["docker", "compose", "restart", service]:
                pass
            case ["curl", *_]:
                continue
            case _:
                pytest.fail(str(call))
        assert service in services


def test_on_kubernetes_the_commands_name_objects_that_exist(tmp_path):
    calls = calls_of(PREPARATIONS["Kubernetes"], tmp_path)
    assert len(calls) > 30
    trees = [read(file) for file in ROOT.glob("k8s/**/deployment-*.yaml")]
    # Patches in the form of JSON are lists.
    names = {f"deploy/{tree['metadata']['name']}" for tree in trees if isinstance(tree, dict)}
    for call in calls:
        assert call[:3] == ["kubectl", "--namespace", "rlcar"]
        match call[3:]:
            case ["exec", name, "--", *words]:
                assert name in names
                check_inside(words)
                mounts_models = name == "deploy/rlcar-page"
                assert mounts_models == (words[:2] == ["rlcar", "models"])
                # The monitor cannot write to the volume of the backup.
                assert words[1:2] not in (["backup"], ["restore"])
            case ["create", "job", _, "--from", name, *_]:
                assert name.removeprefix("cronjob/") in names_of("CronJob")
            case ["patch", *_] | ["create", "--filename", "-"] | ["logs", "--follow", _]:
                pass
            case ["logs", "--prefix", "--tail", "200", "--selector", selector]:
                assert selector in (
                    "batch.kubernetes.io/job-name=NAME",
                    "app.kubernetes.io/component=server",
                )
            case ["rollout", "restart", name]:
                assert name in names
            case _:
                pytest.fail(str(call))


def backup_cronjobs() -> dict[str, Any]:
    """The CronJobs of the backup, by their names."""
    text = (ROOT / "k8s" / "base" / "platform" / "cronjob-backup.yaml").read_text()
    return {one["metadata"]["name"]: one for one in yaml.safe_load_all(text)}


def container_of(job: Any) -> Any:
    """The only container of a Job, or of the template of one."""
    (container,) = job["spec"]["template"]["spec"]["containers"]
    return container


def test_the_target_on_kubernetes_is_that_of_the_cronjobs():
    (row,) = re.findall(r"^\| `TARGET` .*$", (RUNBOOKS / "index.md").read_text(), re.MULTILINE)
    (target,) = re.findall(r"on Kubernetes `([^`]+)`", row)
    for name, cronjob in backup_cronjobs().items():
        args = container_of(cronjob["spec"]["jobTemplate"])["args"]
        assert target == args[1 if name == "rlcar-backup" else 2], name


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is missing")
@pytest.mark.parametrize(
    "words",
    [
        ["backup", "prune", "TARGET"],
        ["backup", "verify", "TARGET", "--discard"],
        ["restore", "TARGET", "--only", "models"],
    ],
    ids=" ".join,
)
def test_on_kubernetes_a_backup_is_changed_in_a_job_that_can_write(words, tmp_path):
    """The real kubectl changes the Job that a cluster would make from the CronJob."""
    cronjob = backup_cronjobs()["rlcar-backup"]["spec"]["jobTemplate"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, **cronjob}
    (tmp_path / "job.json").write_text(json.dumps(job))
    stub = tmp_path / "kubectl"
    stub.write_text(
        f"""#!/bin/sh
        case "$3 $4" in
          "create job") cat {tmp_path}/job.json ;;
          "patch --local") exec {shutil.which("kubectl")} "$@" ;;
          "create --filename") cat > {tmp_path}/created.json ;;
        esac
        """
    )
    stub.chmod(0o755)
    done = subprocess.run(
        ["bash", "-s", "--", *words],
        **{"input": PREPARATIONS["Kubernetes"] + '\nrlcar "$@"\n', "text": True, "cwd": tmp_path},
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    created = json.loads((tmp_path / "created.json").read_text())
    container = container_of(created)
    state = ["--state-file", "/var/lib/rlcar-backup/backup-state.json"]
    assert container["args"] == [*words, *(state if words[1] == "verify" else [])]
    parse(container["args"])
    assert created["spec"]["backoffLimit"] == 0
    mounted = {one["name"]: one for one in container["volumeMounts"]}
    assert not any(mounted[name].get("readOnly") for name in ("runs", "models", "data", "backup"))


def test_the_commands_about_a_run_work_on_a_real_one(tmp_path):
    """Real programs read a real folder of runs, on the host itself."""
    with Run(tmp_path / "runs" / "NAME", make_config(mode="test")) as run:
        run.log(512, 8)
    for name in ("logs", "targets", "NAME/checkpoints"):
        (tmp_path / "runs" / name).mkdir(exist_ok=True)
    (tmp_path / "runs" / "logs" / "JOB.log").write_text("one\n")
    (tmp_path / "runs" / "targets" / "NAME.json").write_text("[]")
    (tmp_path / "STATE").write_text("{}")
    shutil.copytree(tmp_path / "runs" / "NAME", tmp_path / "runs" / "JOB")
    lines = [
        line.replace("RUNS", "runs")
        for line in commands()
        if line.startswith("inside ") or line.startswith("rlcar monitor ")
    ]
    lines = [line for line in lines if "--address" not in line and "--prometheus" not in line]
    assert len(lines) > 15
    rlcar = Path(sys.executable).with_name("rlcar")
    script = "\n".join(
        ['inside() { "$@"; }', f'rlcar() {{ {rlcar} "$@"; }}', "set -eo pipefail", *lines]
    )
    done = subprocess.run(
        ["bash", "-x"],
        **{"input": script, "capture_output": True, "text": True, "cwd": tmp_path},
        env=os.environ | {"COLUMNS": "120"},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def searches(function: str) -> list[str]:
    """The patterns that the pages search a log for."""
    found = [re.search(rf"^{function}.* \| grep (?:-\w )*'?([^']+)'?$", one) for one in commands()]
    return [one[1] for one in found if one]


def logged(*packages: str) -> list[str]:
    """Level and text of every message that these packages log."""
    call = re.compile(r'_?logger\.(\w+)\(\s*f?"([^"]+)"', re.IGNORECASE)
    files = [file for package in packages for file in (ROOT / package).rglob("*.py")]
    return [
        " ".join(found).replace("exception", "error")
        for file in files
        for found in call.findall(file.read_text())
    ]


@pytest.mark.parametrize(
    ("function", "packages"),
    [
        ("server_logs", ["serve"]),
        ("training_logs", ["rlcar/training", "rlcar/storage", "rlcar/runs", "cluster/training"]),
    ],
)
def test_what_the_pages_search_in_a_log_can_be_found_there(function, packages):
    messages = logged(*packages)
    patterns = searches(function)
    assert len(patterns) > 3
    for pattern in patterns:
        assert any(re.search(pattern, one, re.IGNORECASE) for one in messages), pattern


@functools.cache
def names_of(kind: str) -> set[str]:
    """The names of the objects of a kind in `k8s/`."""
    files = [file.read_text() for file in ROOT.glob("k8s/**/*.yaml")]
    found = re.compile(rf"^kind: {kind}\nmetadata:\n  name: (\S+)", re.MULTILINE)
    return {name for text in files for name in found.findall(text)}


def test_every_object_service_and_unit_that_a_page_names_exists():
    units = {one.name.partition(".")[0].rstrip("@") for one in (ROOT / "deploy/systemd").iterdir()}
    services = read(ROOT / "deploy" / "compose.yaml")["services"].keys()
    for page in [*PAGES, RUNBOOKS / "index.md"]:
        text = page.read_text()
        for kind, name in re.findall(r"\b(cronjob|deploy)/(rlcar-[a-z-]+)", text):
            assert name in names_of({"cronjob": "CronJob", "deploy": "Deployment"}[kind]), page
        for unit in re.findall(r"\b(?:systemctl \w+(?:-\w+)*|journalctl -u) (rlcar-[a-z-]+)", text):
            assert unit in units, f"{page}: {unit}"
        options = r"(?:-\S+ |CONT |\d+ )*"
        verbs = r"(?:up|ps|stop|restart|exec|logs|kill)"
        for service in re.findall(rf"docker compose {verbs} {options}([a-z]+)", text):
            assert service in services, f"{page}: {service}"


def test_every_heading_that_a_page_links_to_exists():
    for page in PAGES:
        for file, anchor in re.findall(r"\]\(([^)#\s]*)#([^)]+)\)", page.read_text()):
            headings = re.findall(r"^#+ (.*)$", (page.parent / file).read_text(), re.MULTILINE)
            assert anchor in [re.sub(r"\W+", "-", one.lower()) for one in headings], page
