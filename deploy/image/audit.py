"""Compares the image's locked Python packages with the known vulnerabilities: `make audit`.

It exports what `uv.lock` installs into the image, and asks an advisory database with pip-audit.
The exit code is 0 without findings, 1 with some, and 2 if a package could not be looked up. In the
last case pip-audit alone reports success, for example where a proxy hides PyPI's JSON interface.
pip-audit asks servers only: it cannot read advisories from a file.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PIP_AUDIT = "pip-audit==2.10.1"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="make audit", description=__doc__)
    parser.add_argument("--uv", default="uv", help="the installer's program")
    parser.add_argument("--variant", choices=("cpu", "gpu"), default="cpu", help="of the image")
    parser.add_argument(
        "--osv-url", help="ask this server of the OSV interface in place of PyPI's advisories"
    )
    parser.add_argument(
        "--ignore", action="append", default=[], help="an advisory that was judged; repeatable"
    )
    options = parser.parse_args(arguments)
    if shutil.which(options.uv) is None:
        sys.stderr.write(f"error: there is no program {options.uv}: run make audit, or give --uv\n")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        exported = _export(options, requirements)
        if exported.returncode != 0:
            sys.stderr.write(f"error: uv cannot export uv.lock: {_last_line(exported.stderr)}\n")
            return 2
        done = _pip_audit(options, requirements)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        database = options.osv_url or "PyPI's advisories"
        sys.stderr.write(
            f"error: pip-audit got no answer from {database} ({_last_line(done.stderr)}): "
            "--osv-url asks another server\n"
        )
        return 2
    return report(packages)


def _export(options: argparse.Namespace, requirements: Path) -> subprocess.CompletedProcess[str]:
    """Writes what `uv.lock` installs into the image, with hashes."""
    command = [options.uv, "export", "--quiet", "--locked", "--no-default-groups"]
    command += ["--extra", "cluster", "--extra", "serve", "--no-emit-project"]
    command += ["--extra", "gpu"] if options.variant == "gpu" else []
    command += ["--output-file", str(requirements)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def _pip_audit(options: argparse.Namespace, requirements: Path) -> subprocess.CompletedProcess[str]:
    command = [options.uv, "tool", "run", "--quiet", "--from", PIP_AUDIT, "pip-audit"]
    command += ["--requirement", str(requirements), "--disable-pip", "--require-hashes"]
    command += ["--format", "json", "--progress-spinner", "off"]
    if options.osv_url:
        command += ["--vulnerability-service", "osv", "--osv-url", options.osv_url]
    for advisory in options.ignore:
        command += ["--ignore-vuln", advisory]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it printed nothing"])[-1]


def report(packages: Sequence[dict[str, Any]]) -> int:
    """Prints the findings of pip-audit; returns the exit code."""
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    found = [(package, one) for package in packages for one in package.get("vulns", [])]
    for package, one in found:
        fixed = ", ".join(one["fix_versions"]) or "no version yet"
        names = ", ".join([one["id"], *one.get("aliases", [])])
        sys.stdout.write(f"{package['name']} {package['version']}: {names}; fixed in {fixed}\n")
    checked = len(packages) - len(skipped)
    if checked:
        sys.stdout.write(f"{checked} packages checked, {len(found)} advisories apply\n")
    if skipped:
        sys.stderr.write(
            f"error: {len(skipped)} of {len(packages)} packages could not be looked up (the first "
            f"is {skipped[0]}): is https://pypi.org/pypi/NAME/VERSION/json reachable? "
            "--osv-url asks another server\n"
        )
        return 2
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
