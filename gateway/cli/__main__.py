"""The command `dubstage`, started as `python -m gateway.cli`."""

from gateway.cli import main

main()
