"""`python -m gateway.cli` is `dubstage`."""

from gateway.cli import main

main()
