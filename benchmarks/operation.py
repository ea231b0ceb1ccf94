"""What does the operational half consist of, and how long do its steps take?

    python benchmarks/operation.py [--part manifests --part alerts ...] [--base IMAGE]

Parts: `manifests` counts the Kubernetes objects and overlays, `alerts` the alert rules and their
unit tests, `dashboards` sends every query of the dashboards to a Prometheus that has scraped real
processes, `backup` loses and restores an installation, and `image` builds the container image
without a cache. A part needs its programs: kubectl; prometheus and prometheus-alertmanager; podman,
docker or buildah, and a base image. Without `--part` all of them run, in about ten minutes.
Writes benchmarks/results/operation.json; parts that were not run keep their earlier figures.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from benchmarks.header import origin, print_header
from cluster.chaos.report import write_report
from tests.deploy.monitoring.rules import alerts, unit_tests

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "operation.json"
Figures = dict[str, float]


def count_manifests(options: argparse.Namespace) -> Figures:
    """Renders the base and every overlay; counts distinct objects and overlays."""
    overlays = sorted(path.parent for path in ROOT.glob("k8s/overlays/*/kustomization.yaml"))
    objects = set()
    rendered = 0
    for folder in [ROOT / "k8s" / "base", *overlays]:
        text = run("kubectl", "kustomize", str(folder))
        for document in yaml.load_all(text, yaml.CSafeLoader):
            rendered += 1
            objects.add((document["kind"], document["metadata"]["name"]))
    return {"manifests": len(objects), "overlays": len(overlays), "objects_rendered": rendered}


def count_alerts(options: argparse.Namespace) -> Figures:
    """Counts the alert rules and the cases of their unit tests, which `promtool` runs."""
    cases = [case for cases in unit_tests().values() for case in cases]
    return {"alert_rules": len(alerts()), "alert_tests": len(cases)}


def ask_dashboards(options: argparse.Namespace) -> Figures:
    """Runs the test that sends every query to a real Prometheus."""
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures.json"
        run(
            *(sys.executable, "-m", "pytest", "-q", "tests/deploy/monitoring/test_queries.py"),
            environment={"RLCAR_FIGURES": str(figures)},
        )
        return dict(json.loads(figures.read_text()))


def restore_a_backup(options: argparse.Namespace) -> Figures:
    """Loses and restores an installation."""
    return figures_of(run(sys.executable, "benchmarks/backup.py", "--mb", "64", "--rounds", "1"))


def build_image(options: argparse.Namespace) -> Figures:
    """Builds the image for CPUs without a cache."""
    base = ["--base", options.base] if options.base else []
    return figures_of(run(sys.executable, "deploy/image/build.py", "--no-cache", *base))


PARTS: dict[str, Callable[[argparse.Namespace], Figures]] = {
    "manifests": count_manifests,
    "alerts": count_alerts,
    "dashboards": ask_dashboards,
    "backup": restore_a_backup,
    "image": build_image,
}


def run(*command: str, environment: dict[str, str] | None = None) -> str:
    """Runs a command; returns what it wrote to stdout, and ends the benchmark if it failed."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | (environment or {}),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}")
    return done.stdout


def figures_of(output: str) -> Figures:
    """Reads the lines `figure name=value`."""
    found = re.findall(r"^figure (\w+)=(\S+)$", output, re.MULTILINE)
    return {name: float(value) for name, value in found}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--part", action="append", choices=list(PARTS), help="may be repeated; default: all"
    )
    parser.add_argument("--base", help="base image of the build")
    options = parser.parse_args()
    print_header("kubernetes")
    load_before = os.getloadavg()[0]
    report: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    measured = report.setdefault("measured", {})
    for part in options.part or PARTS:
        figures = PARTS[part](options)
        report |= figures
        measured[part] = {"figures": sorted(figures)} | origin(load_before)
        write_report(RESULTS, report)
        for name, value in figures.items():
            print(f"figure {name}={value:g}")


if __name__ == "__main__":
    main()
