"""`rlcar` and `python -m rlcar`."""

import sys


def main() -> None:
    """Runs a verb; Ctrl-C during the second that reading all of it takes ends it in silence."""
    try:
        from rlcar import cli
    except KeyboardInterrupt:
        sys.exit(130)
    cli.main()


if __name__ == "__main__":
    main()
