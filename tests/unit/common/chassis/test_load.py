from __future__ import annotations

import subprocess
import sys

import pytest

from services.common.chassis.load import LEAST_COMPUTED_SECONDS, WINDOW_SECONDS, Load
from services.common.chassis.memory import resident_bytes


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def load(clock: Clock) -> Load:
    return Load(clock)


def test_an_idle_queue_has_a_ratio_of_zero(load: Load, clock: Clock) -> None:
    clock.now += 500
    assert load.lately() == (0.0, 0.0)
    assert load.lately().ratio == 0.0


def test_work_that_never_waits_has_a_ratio_of_zero_however_busy_the_workers_are(load: Load, clock: Clock) -> None:
    load.arrive()
    load.start()
    clock.now += 30
    assert load.lately() == (0.0, 30.0)
    assert load.lately().ratio == 0.0
    assert (load.queued, load.running) == (0, 1)


def test_seconds_are_summed_over_everything_that_waits_while_it_waits(load: Load, clock: Clock) -> None:
    for _ in range(4):
        load.arrive()
    load.start()
    clock.now += 10
    assert load.lately() == (30.0, 10.0)
    assert load.lately().ratio == 3.0
    load.give_up()
    clock.now += 10
    assert load.lately() == (50.0, 20.0)


def test_only_the_window_counts(load: Load, clock: Clock) -> None:
    for _ in range(2):
        load.arrive()
    load.start()
    clock.now += 20
    load.finish()
    load.start()
    clock.now += 20
    load.finish()
    assert load.lately() == (20.0, 40.0)
    clock.now += WINDOW_SECONDS - 30
    # The first ten seconds, in which one waited and one ran, are over.
    assert load.lately() == pytest.approx((10.0, 30.0))
    clock.now += WINDOW_SECONDS
    assert load.lately() == pytest.approx((0.0, 0.0))


def test_a_window_of_many_short_computations_is_right_to_a_second(load: Load, clock: Clock) -> None:
    for _ in range(20_000):
        load.arrive()
        clock.now += 0.004
        load.start()
        clock.now += 0.006
        load.finish()
    waited, computed = load.lately()
    assert waited == pytest.approx(0.4 * WINDOW_SECONDS, abs=1.0)
    assert computed == pytest.approx(0.6 * WINDOW_SECONDS, abs=1.0)


def test_a_queue_that_does_not_move_at_all_shows(load: Load, clock: Clock) -> None:
    load.arrive()
    clock.now += 45
    assert load.lately().ratio == 45 / LEAST_COMPUTED_SECONDS


@pytest.mark.skipif(resident_bytes() is None, reason="the platform does not say how much memory a process has")
def test_memory_that_is_written_to_is_resident() -> None:
    # In a process of its own: this one may give memory of other tests back between the two looks.
    code = (
        "from services.common.chassis.memory import resident_bytes\n"
        "before = resident_bytes()\n"
        "held = b'x' * (24 << 20)\n"
        "print(resident_bytes() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert int(done.stdout) > 12 << 20
