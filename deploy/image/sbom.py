"""Writes the software bill of materials of a built image: `make sbom`.

It lists what is really in the image (Python's packages from their metadata, Debian's from dpkg) as
CycloneDX 1.6 in JSON, checked against the format's schema. It runs under `uv run`, which brings the
library: `uv run --no-project --with 'cyclonedx-python-lib[json-validation]' deploy/image/sbom.py`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from build import default_tag, describe_sources
from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

# Runs in the image, with its own interpreters.
_LIST_PYTHON = """
import importlib.metadata, json
found = []
for one in importlib.metadata.distributions():
    about = one.metadata
    found.append({"name": about["Name"], "version": one.version,
                  "license": about["License-Expression"], "summary": about["Summary"]})
print(json.dumps(found))
"""
_LIST_DEBIAN = "dpkg-query --show --showformat '${Package}\\t${Version}\\t${Architecture}\\n'"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="make sbom", description=__doc__)
    parser.add_argument("--image", help="name of the image (default: that of make image)")
    parser.add_argument("--engine", choices=("docker", "podman"), help="default: what works here")
    parser.add_argument("--output", type=Path, default=Path("dist/rlcar-sbom.cdx.json"))
    options = parser.parse_args(arguments)
    engine = options.engine or next(filter(_works, ("docker", "podman")), None)
    if engine is None:
        sys.stderr.write("error: neither Docker nor Podman works here\n")
        return 2
    name = options.image or default_tag(describe_sources().version, "cpu")
    inspected = subprocess.run(
        [engine, "image", "inspect", name], capture_output=True, text=True, check=False
    )
    if inspected.returncode != 0:
        sys.stderr.write(f"error: there is no image {name}: make image builds it\n")
        return 2
    bom = describe(json.loads(inspected.stdout)[0], name, _listings(engine, name))
    text = JsonV1Dot6(bom).output_as_string(indent=2)
    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if wrong is not None:
        raise AssertionError(f"the document breaks the schema: {wrong}")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    temporary = options.output.with_suffix(".tmp")
    temporary.write_text(text + "\n")
    os.replace(temporary, options.output)
    sys.stdout.write(f"{options.output}: {len(bom.components)} components of {name}\n")
    return 0


def describe(image: dict[str, Any], name: str, components: Iterator[Component]) -> Bom:
    """Returns the bill of an image, which is the same whenever it is written."""
    labels = image["Config"].get("Labels") or {}
    digest = image["Id"].removeprefix("sha256:")
    bom = Bom(components=components)
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, f"sha256:{digest}")
    bom.metadata.timestamp = datetime.fromisoformat(image["Created"][:19] + "+00:00")
    bom.metadata.component = Component(
        type=ComponentType.CONTAINER,
        name=name,
        version=labels.get("org.opencontainers.image.version", "unknown"),
        bom_ref="image",
        purl=PackageURL("oci", None, "rlcar", f"sha256:{digest}"),
        licenses=[LicenseFactory().make_from_string("Apache-2.0")],
    )
    bom.register_dependency(bom.metadata.component, bom.components)
    return bom


def _listings(engine: str, image: str) -> Iterator[Component]:
    for one in json.loads(_in_image(engine, image, "python", "-I", "-c", _LIST_PYTHON)):
        purl = PackageURL("pypi", None, one["name"].lower().replace("_", "-"), one["version"])
        licenses = [LicenseFactory().make_from_string(one["license"])] if one["license"] else []
        yield Component(
            name=one["name"],
            version=one["version"],
            purl=purl,
            bom_ref=str(purl),
            description=one["summary"],
            licenses=licenses,
        )
    for line in _in_image(engine, image, "sh", "-c", _LIST_DEBIAN).splitlines():
        name, version, architecture = line.split("\t")
        qualifiers = {"arch": architecture, "distro": "debian"}
        purl = PackageURL("deb", "debian", name, version, qualifiers)
        yield Component(name=name, version=version, purl=purl, bom_ref=str(purl))


def _in_image(engine: str, image: str, program: str, *arguments: str) -> str:
    command = [engine, "run", "--rm", "--network=none", "--read-only", f"--entrypoint={program}"]
    # A machine may forbid the engine to raise these limits.
    command += ["--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096"]
    return subprocess.run(
        [*command, image, *arguments], stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def _works(engine: str) -> bool:
    if shutil.which(engine) is None:
        return False
    return subprocess.run([engine, "info"], capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
