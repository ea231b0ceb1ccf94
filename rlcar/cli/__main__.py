"""`python -m rlcar.cli`."""

from rlcar.cli import main

main()
