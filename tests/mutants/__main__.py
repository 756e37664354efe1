"""`python -m tests.mutants`: whether the nearest tests notice one changed comparison, sign, constant or boolean.

mutmut 3 and cosmic-ray 8 draw no sample. mutmut runs all tests before the first mutant. cosmic-ray changes the files in place,
and has one command of tests for all files.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.util
import random
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import zip_longest
from pathlib import Path
from typing import Annotated

import typer

from tests.mutants.equivalent import EQUIVALENT
from tests.mutants.mutations import KINDS, Mutant, mutants_below
from tests.mutants.report import share, write_report
from tests.mutants.runs import Checkout, Outcome
from tests.unit.architecture.module_graph import ROOT

PRODUCT = ("services", "gateway")
_checkout: Checkout
"""The copy of a worker process."""


def main(
    count: Annotated[int, typer.Option(help="Number of mutants.", min=1)] = 200,
    first: Annotated[int, typer.Option(help="Number of the first mutant of the sample.", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 1,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Folder, file, or file:line of the mutants. May be given several times. Default: all."),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Time of the tests of one mutant, in s.", min=1.0)] = 300.0,
    workers: Annotated[int, typer.Option(help="Mutants that run at once.", min=1)] = 2,
    output: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("out/mutants"),
) -> None:
    """Run the nearest tests against a sample of mutants, and report those that survive."""
    chosen = sample(seed, tuple(only or ()))[first : first + count]
    if not chosen:
        raise typer.BadParameter(f"{', '.join(only or ())}: no mutant of the product is there", param_hint="--only")
    outcomes = []
    for number, outcome in enumerate(_outcomes(chosen, workers, timeout), 1):
        outcomes.append(outcome)
        print(f"{number} of {len(chosen)} {outcome.result} {outcome.seconds:.0f} s {outcome.mutant}", flush=True)
        # After each mutant, so that an interrupted run leaves a report.
        page = write_report(outcomes, f"{number} of {len(chosen)} mutants, seed {seed}", output)
    print(f"{share(outcomes)}\n{page}")


def sample(seed: int, only: tuple[str, ...] = ()) -> list[Mutant]:
    """Return all mutants, or those of some places, in a random order in which the kinds of changes take turns."""
    found = defaultdict[str, list[Mutant]](list)
    for mutant in mutants_below(ROOT, PRODUCT):
        is_wanted = not only or any(_is_at(mutant, place) for place in only)
        if is_wanted and not any(equivalent.names(mutant) for equivalent in EQUIVALENT):
            found[mutant.kind].append(mutant)
    generator = random.Random(seed)
    for kind in KINDS:
        generator.shuffle(found[kind])
    return [mutant for turn in zip_longest(*(found[kind] for kind in KINDS)) for mutant in turn if mutant is not None]


def _is_at(mutant: Mutant, place: str) -> bool:
    path, _, line = place.partition(":")
    return Path(mutant.path).is_relative_to(path) and line in ("", str(mutant.line))


def _outcomes(chosen: list[Mutant], workers: int, timeout_s: float) -> Iterator[Outcome]:
    """Return what became of mutants, in the order of their ends."""
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(workers, context, _start, (timeout_s,)) as pool:
        try:
            for future in as_completed([pool.submit(_try, mutant) for mutant in chosen]):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _start(timeout_s: float) -> None:
    global _checkout  # noqa: PLW0603
    _checkout = Checkout(timeout_s)
    multiprocessing.util.Finalize(None, _checkout.remove, exitpriority=1)


def _try(mutant: Mutant) -> Outcome:
    return _checkout.try_mutant(mutant)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
