"""What can be checked without an engine: Containerfile, compose file, build command, audit."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from deploy.image import audit, build
from rlcar import __version__
from rlcar.cli import app

ROOT = Path(__file__).parents[3]
IMAGE = ROOT / "deploy" / "image"
COMPOSE = ROOT / "deploy" / "compose.yaml"
# Where the image and Kubernetes keep things too.
OUR_MOUNTS = {
    "/var/lib/rlcar/runs",
    "/var/lib/rlcar/models",
    "/var/lib/rlcar/data",
    "/var/cache/rlcar",
}


def _interpolated(text: str) -> str:
    """Replaces `${NAME:-default}` by the default, as Compose does where nobody sets NAME."""
    return re.sub(r"\$\{\w+(?::-([^}]*))?\}", lambda match: match[1] or "", text)


def _services() -> dict[str, dict]:
    return yaml.safe_load(_interpolated(COMPOSE.read_text()))["services"]


SERVICES = _services()
OURS = {name: one for name, one in SERVICES.items() if "rlcar" in one["image"]}


def test_hadolint_finds_nothing_in_the_containerfile():
    beside = Path(sys.executable).with_name("hadolint")
    program = str(beside) if beside.exists() else shutil.which("hadolint")
    if program is None:
        pytest.skip("not installed: hadolint")
    done = subprocess.run(
        [program, str(IMAGE / "Containerfile")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_image_and_hosts_install_with_the_version_of_uv_that_the_makefile_has():
    makefile = re.search(r"^UV_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    image = re.search(r"^uv==(\S+)", (IMAGE / "uv-requirements.txt").read_text(), re.MULTILINE)
    scripts = (ROOT / "deploy/host/common.sh").read_text()
    hosts = re.search(r"^uv_version=(\S+)$", scripts, re.MULTILINE)
    assert makefile is not None
    assert image is not None
    assert hosts is not None
    assert makefile[1] == image[1] == hosts[1]


def test_only_what_is_named_reaches_the_build():
    ignored = (ROOT / ".containerignore").read_text()
    # Docker looks for the second name, Podman is told the first.
    assert (IMAGE / "Containerfile.dockerignore").read_text() == ignored
    lines = [line for line in ignored.splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    admitted = {line[1:] for line in lines if line.startswith("!")}
    assert all((ROOT / path).exists() for path in admitted)
    assert not {".git", "runs", "models", "tests"} & admitted


def test_what_the_wheel_contains_reaches_the_build():
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = settings["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["packages"], *wheel.get("force-include", {}), settings["project"]["readme"]}
    admitted = [line[1:] for line in (ROOT / ".containerignore").read_text().splitlines()
                if line.startswith("!")]  # fmt: skip
    assert {path for path in needed if path.split("/")[0] not in admitted} == set()


@pytest.mark.parametrize("file", ["compose.yaml", "compose.gpu.yaml"])
def test_the_compose_file_is_valid(file):
    compose_spec = pytest.importorskip("compose_spec")
    # The validator knows no merge keys, which reading and writing resolves.
    content = yaml.safe_load(_interpolated((ROOT / "deploy" / file).read_text()))
    compose_spec.PyCompose.from_yaml(yaml.safe_dump(content)).validate()


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_each_service_is_limited_and_hardened(name):
    service = SERVICES[name]
    limits = service["deploy"]["resources"]["limits"]
    assert {"cpus", "memory", "pids"} <= limits.keys()
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "pid", "network_mode", "devices"} & service.keys()
    assert re.fullmatch(r"[1-9]\d*:\d+", service["user"])
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["logging"]["options"]["max-size"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert not any("docker.sock" in str(volume) for volume in service.get("volumes", []))
    assert re.search(r":v?\d+\.\d+\.\d+(-gpu)?$", service["image"]), "no moving tag"


def test_no_secret_is_in_the_compose_file():
    given = [
        (name, value)
        for service in SERVICES.values()
        for name, value in service.get("environment", {}).items()
        if re.search("PASSWORD|SECRET|TOKEN|KEY", name)
    ]
    assert given == [("RLCAR_TOKENS", "/var/lib/rlcar/data/tokens.json")] * len(OURS)


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_services_run_the_built_image_with_known_options(name):
    service = OURS[name]
    assert service["image"] == build.default_tag(__version__, "cpu")
    assert service["user"] == "10001:10001"
    assert {volume.split(":")[1] for volume in service["volumes"]} == OUR_MOUNTS
    verb, *arguments = service["command"].split()
    command = typer.main.get_command(app)
    # Raises for an option that there is not, or a value that it refuses.
    command.commands[verb].make_context(verb, arguments, parent=None)


def test_the_server_runs_during_the_first_training_and_serves_its_result():
    assert "depends_on" not in OURS["server"]
    assert "--wait-for-model" in OURS["server"]["command"].split()
    assert "--publish" in OURS["trainer"]["command"].split()


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - OURS.keys()))
def test_files_that_monitoring_mounts_are_there(name):
    sources = [volume.split(":")[0] for volume in SERVICES[name]["volumes"]]
    assert [
        source
        for source in sources
        if source.startswith(".") and not (COMPOSE.parent / source).exists()
    ] == []


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        (
            "https://user:secret@example.org:8443/a/rlcar.git",
            "https://example.org:8443/a/rlcar.git",
        ),
        ("https://example.org/rlcar", "https://example.org/rlcar"),
        ("git@example.org:rlcar.git", "unknown"),
        ("/home/somebody/rlcar", "unknown"),
        ("", "unknown"),
        (None, "unknown"),
    ],
)
def test_the_label_of_the_source_has_no_password_and_no_private_path(remote, address):
    assert build.public_address(remote) == address


@pytest.mark.parametrize("engine", ["docker", "podman", "buildah"])
def test_the_build_command_of_each_engine(engine, capsys, tmp_path):
    bundle = tmp_path / "ca.pem"
    bundle.write_text("certificate")
    arguments = ["--print", "--engine", engine, "--variant", "gpu", "--certificates", str(bundle)]
    assert build.main(arguments) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{engine} build --file deploy/image/Containerfile")
    assert f"--tag localhost/rlcar:{__version__}-gpu" in printed
    assert "--build-arg VARIANT=gpu" in printed
    assert f"--secret id=certificates,src={bundle}" in printed
    # Only Docker's format has a health check.
    assert ("--format docker" in printed) is (engine != "docker")


@pytest.mark.parametrize(
    ("arguments", "epoch", "sentence"),
    [
        (["--certificates", "/nowhere.pem"], "1", "--certificates /nowhere.pem: there is no such"),
        ([], "yesterday", "SOURCE_DATE_EPOCH=yesterday: give a Unix time in seconds"),
        ([], "nan", "SOURCE_DATE_EPOCH=nan"),
        ([], "-5", "SOURCE_DATE_EPOCH=-5"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, epoch, sentence, capsys, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    assert build.main(["--print", "--engine", "podman", *arguments]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


def test_without_an_engine_the_build_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "/nowhere")
    assert build.main(["--print"]) == 2
    assert "neither Docker, Podman nor Buildah works here" in capsys.readouterr().err


CLEAN = {"name": "a", "version": "1", "vulns": []}
FOUND = {"name": "b", "version": "2", "vulns": [{"id": "X-1", "fix_versions": ["3"]}]}
SKIPPED = {"name": "c", "skip_reason": "not found on PyPI"}


@pytest.mark.parametrize(
    ("packages", "code", "says"),
    [
        ([CLEAN], 0, "1 packages checked, 0 advisories apply"),
        ([CLEAN, FOUND], 1, "b 2: X-1; fixed in 3"),
        ([CLEAN, SKIPPED], 2, "1 of 2 packages could not be looked up (the first is c)"),
        ([FOUND, SKIPPED], 2, "could not be looked up"),
    ],
)
def test_an_audit_that_looked_nothing_up_is_no_success(packages, code, says, capsys):
    assert audit.report(packages) == code
    out, err = capsys.readouterr()
    assert says in out + err


def test_an_audit_without_a_database_claims_nothing(capsys):
    assert audit.report([SKIPPED]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1


_UV = """#!/bin/sh
case "$*" in
  "export "*) {export} ;;
  *) echo "DEBUG: asking" >&2; echo "ConnectionError: refused" >&2; exit 1 ;;
esac
"""


@pytest.mark.parametrize(
    ("export", "says"),
    [
        (
            "true",
            "error: pip-audit got no answer from http://127.0.0.1:9/v1/query (ConnectionError: "
            "refused): --osv-url asks another server\n",
        ),
        ("echo stale >&2; exit 2", "error: uv cannot export uv.lock: stale\n"),
        (None, "error: there is no program {uv}: run make audit, or give --uv\n"),
    ],
    ids=["the database", "the lock file", "the installer"],
)
def test_an_audit_that_fails_says_why_in_one_sentence(tmp_path, capsys, export, says):
    uv = tmp_path / "uv"
    if export is not None:
        uv.write_text(_UV.replace("{export}", export))
        uv.chmod(0o755)
    assert audit.main(["--uv", str(uv), "--osv-url", "http://127.0.0.1:9/v1/query"]) == 2
    assert capsys.readouterr() == ("", says.format(uv=uv))
