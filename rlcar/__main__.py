"""`rlcar` and `python -m rlcar`; reports in one sentence what this Python lacks."""

import sys

_OURS = ("rlcar", "cluster", "serve")
_NEWEST_TOO_OLD = (3, 10)


def main() -> None:
    """Runs a verb; Ctrl-C during the imports, which take a second, ends without a traceback."""
    if sys.version_info[:2] <= _NEWEST_TOO_OLD:
        _refuse(f"is version {sys.version.partition(' ')[0]}, and rlcar needs 3.11 or newer")
    try:
        from rlcar import cli
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:
        _report_missing_package(error)
        raise
    try:
        cli.main()
    except ModuleNotFoundError as error:
        _report_missing_package(error)
        raise


def _report_missing_package(error: ModuleNotFoundError) -> None:
    """Exits with one sentence if a third-party package is missing.

    Returns if it is a module of rlcar.
    """
    package = (error.name or "").partition(".")[0]
    if package and package not in _OURS:
        _refuse(f"lacks the package {package}")


def _refuse(what: str) -> None:
    sys.stderr.write(
        f"error: the Python {sys.executable} {what}: install 'rlcar[cluster,serve]' for it, or use "
        "the one that has it (rlcar submit and rlcar doctor: name that of the head node with "
        "--python)\n"
    )
    sys.exit(2)


if __name__ == "__main__":
    main()
