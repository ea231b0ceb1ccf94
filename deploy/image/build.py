"""Builds the image of rlcar with Docker, Podman or Buildah: `make image`, or `make image ARGS="…"`.

It needs Python 3.11 and nothing else. Two builds of one commit with one base give the same files
and file times, as far as Debian's mirror has not changed between them.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
CONTAINERFILE = "deploy/image/Containerfile"
BASE = "docker.io/library/debian:bookworm-slim"
ENGINES = ("docker", "podman", "buildah")


class BuildError(Exception):
    """A mistake of the user's, or a failure of the engine: one sentence for stderr."""


class Origin(NamedTuple):
    """What the image is built from, for its labels."""

    version: str
    revision: str  # the commit; with -dirty if the sources differ from it
    source: str
    time_unix_s: int  # of the commit


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        origin = describe_sources(options.source)
        tag = options.tag or default_tag(origin.version, options.variant)
        engine = options.engine or find_engine()
        command = build_command(engine, tag, origin, options)
        if options.print:
            sys.stdout.write(shlex.join(command) + "\n")
            return 0
        began_s = time.monotonic()
        if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
            raise BuildError(f"{engine} could not build {tag}: its last lines above say why")
        seconds = time.monotonic() - began_s
        sys.stdout.write(f"image {tag}\n")
        size = size_bytes(engine, tag)
        if size is not None:
            sys.stdout.write(f"figure image_mb={size / 1e6:.0f}\n")
        sys.stdout.write(f"figure image_build_s={seconds:.0f}\n")
    except BuildError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make image", description=__doc__)
    parser.add_argument(
        "--variant", choices=("cpu", "gpu"), default="cpu", help="gpu adds JAX for NVIDIA cards"
    )
    parser.add_argument(
        "--base", default=BASE, help=f"base image, best with its digest (default: {BASE})"
    )
    parser.add_argument("--tag", help="name of the image (default: localhost/rlcar:VERSION)")
    parser.add_argument(
        "--engine", choices=ENGINES, help="default: the first that is installed and answers"
    )
    parser.add_argument("--source", help="address of the repository, for the image's label")
    parser.add_argument(
        "--certificates",
        default=os.environ.get("SSL_CERT_FILE"),
        help="certificates to trust while the build downloads (default: SSL_CERT_FILE)",
    )
    parser.add_argument("--no-cache", action="store_true", help="builds every step again")
    parser.add_argument("--print", action="store_true", help="prints the engine's command only")
    return parser


def default_tag(version: str, variant: str) -> str:
    """Returns the name of an image that nobody has named."""
    return f"localhost/rlcar:{version}" + ("" if variant == "cpu" else f"-{variant}")


def find_engine() -> str:
    """Returns the first engine that works; a Docker client alone builds nothing."""
    for engine in ENGINES:
        if shutil.which(engine) is None:
            continue
        probe = "version" if engine == "buildah" else "info"
        if subprocess.run([engine, probe], capture_output=True, check=False).returncode == 0:
            return engine
    raise BuildError(
        "neither Docker, Podman nor Buildah works here: install one, for example with "
        "apt-get install podman"
    )


def build_command(engine: str, tag: str, origin: Origin, options: argparse.Namespace) -> list[str]:
    """Returns the engine's command line."""
    created = datetime.fromtimestamp(origin.time_unix_s, UTC).isoformat().replace("+00:00", "Z")
    build_arguments = {
        "BASE_IMAGE": options.base,
        "VARIANT": options.variant,
        "VERSION": origin.version,
        "REVISION": origin.revision,
        "CREATED": created,
        "SOURCE": origin.source,
    }
    command = [engine, "build", "--file", CONTAINERFILE, "--tag", tag]
    if engine == "docker":
        # BuildKit sets the image's time from this argument.
        build_arguments["SOURCE_DATE_EPOCH"] = str(origin.time_unix_s)
    else:
        # Docker's format has the health check; buildah caches layers only if it is asked to.
        command += ["--format", "docker", "--layers", "--ignorefile", ".containerignore"]
        command += ["--timestamp", str(origin.time_unix_s)]
    for name, value in build_arguments.items():
        command += ["--build-arg", f"{name}={value}"]
    if options.certificates:
        if not Path(options.certificates).is_file():
            raise BuildError(f"--certificates {options.certificates}: there is no such file")
        command += ["--secret", f"id=certificates,src={Path(options.certificates).resolve()}"]
    if options.no_cache:
        command.append("--no-cache")
    return [*command, "."]


def describe_sources(source: str | None = None) -> Origin:
    """Reads version and commit; a folder that is no checkout has no commit and the present time."""
    found = re.search(r'__version__ = "([^"]+)"', (ROOT / "rlcar/__init__.py").read_text())
    version = found[1] if found else "unknown"
    given = os.environ.get("SOURCE_DATE_EPOCH")
    epoch = given or _git("log", "-1", "--format=%ct") or str(int(time.time()))
    if not epoch.isdigit():
        raise BuildError(f"SOURCE_DATE_EPOCH={epoch}: give a Unix time in seconds")
    commit = _git("rev-parse", "HEAD") or "unknown"
    revision = commit + ("-dirty" if _git("status", "--porcelain") else "")
    address = source or public_address(_git("remote", "get-url", "origin"))
    return Origin(version, revision, address, int(epoch))


def public_address(remote: str | None) -> str:
    """Returns the remote's address without a user name or password; unknown for a local one."""
    parts = urllib.parse.urlsplit(remote or "")
    if parts.scheme != "https" or parts.hostname is None:
        return "unknown"
    port = f":{parts.port}" if parts.port else ""
    return f"https://{parts.hostname}{port}{parts.path}"


def size_bytes(engine: str, tag: str) -> int | None:
    """Returns the size of an image without compression; None where the engine does not tell."""
    if engine == "buildah":
        return None
    done = subprocess.run(
        [engine, "image", "inspect", tag], capture_output=True, text=True, check=False
    )
    return int(json.loads(done.stdout)[0]["Size"]) if done.returncode == 0 else None


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
