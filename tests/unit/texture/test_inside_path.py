"""Tests of the path through a bank that chooses the inside of the mouth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from services.common.array_types import Float32
from services.common.errors import InvalidRequestError
from services.common.face.landmarks import mouth_opening, shut_lips
from services.common.face.mouth_bank import MouthBank, window_costs
from services.texture import inside_path
from services.texture.bank import build_bank
from services.texture.inside_path import HeldInside, InsideCosts, InsidePath, InsideSource, inside_samples
from services.texture.types import TargetFrame

if TYPE_CHECKING:
    from tests.unit.texture.conftest import DrawnPerson

SHOT = range(200, 300)
Choice = Callable[[MouthBank, list[TargetFrame]], list[InsideSource]]
SIDEWAYS_PX = 2.0


@pytest.fixture(scope="module")
def bank(person: DrawnPerson) -> MouthBank:
    """Ninety frames of the person, without the frames 40 to 49; each third frame has teeth of its own brightness."""
    frames = [person.bank_frame(frame) for frame in range(90) if frame // 10 != 4]
    rng = np.random.default_rng(2)
    for frame in frames:
        dark = frame.box.mean(axis=2) < 60
        frame.box[dark] = rng.integers(0, 255)
    return build_bank(frames)


def chosen(bank: MouthBank, frames: list[TargetFrame]) -> list[InsideSource]:
    path = InsidePath(InsideCosts(bank))
    return [source for frame in frames for source in path.push(frame)] + path.finish()


def held(bank: MouthBank, frames: list[TargetFrame]) -> list[InsideSource]:
    """The sources of a stream that knows the past only."""
    inside, window, found = HeldInside(InsideCosts(bank)), [frames[0].mouth] * 6, []
    for frame in frames:
        window = [*window[1:], frame.mouth]
        row = inside.next_row(frame.mouth, window_costs(bank, np.stack(window), frame.pose.rotation))
        found.append(InsideSource(frame.frame_index, int(bank.frame_index[row])))
    return found


def jumps(sources: list[int], targets: list[TargetFrame], least_px: float = 3.0) -> int:
    """How often the source leaves its run of footage while the lips are parted."""
    openings = [float(mouth_opening(target.mouth)) for target in targets]
    steps = zip(sources, sources[1:], openings[1:], strict=False)
    return sum(not 0 <= after - before <= 2 and opening > least_px for before, after, opening in steps)


def best_alone(bank: MouthBank, targets: list[TargetFrame]) -> list[int]:
    """The frame that fits each target best."""
    window = [targets[0].mouth] * 6
    found = []
    for target in targets:
        window = [*window[1:], target.mouth]
        row = bank.window_rows[int(np.argmin(window_costs(bank, np.stack(window), target.pose.rotation))), -1]
        found.append(int(bank.frame_index[row]))
    return found


def test_path_answers_every_frame_in_order(person: DrawnPerson, bank: MouthBank) -> None:
    frames = [person.target(frame) for frame in SHOT if frame not in {230, 231}]
    found = chosen(bank, frames)
    assert [source.frame_index for source in found] == [frame.frame_index for frame in frames]
    assert {source.bank_frame_index for source in found} <= set(bank.frame_index.tolist())


def test_path_keeps_runs_of_footage(person: DrawnPerson, bank: MouthBank) -> None:
    """The path leaves a run of footage much less often than the best frame of each moment does."""
    frames = [person.target(frame) for frame in SHOT]
    path = [source.bank_frame_index for source in chosen(bank, frames)]
    assert jumps(path, frames) < 0.5 * jumps(best_alone(bank, frames), frames)


def test_jumps_look_alike(person: DrawnPerson, bank: MouthBank) -> None:
    """Where the path leaves a run of footage between parted lips, both insides look alike."""
    frames = [person.target(frame) for frame in SHOT]
    path = [source.bank_frame_index for source in chosen(bank, frames)]
    costs = InsideCosts(bank)
    windows = np.searchsorted(costs.footage, path).tolist()
    steps = zip(path, path[1:], windows, windows[1:], frames[1:], strict=False)
    apart = [costs.apart[a, b] for i, j, a, b, to in steps if not 0 <= j - i <= 2 and mouth_opening(to.mouth) > 3.0]
    assert apart
    assert np.mean(apart) < 9.0


def test_own_footage_is_its_own_path(person: DrawnPerson, bank: MouthBank) -> None:
    frames = [person.target(frame) for frame in range(10, 40)]
    assert [source.bank_frame_index for source in chosen(bank, frames)][6:] == list(range(16, 40))


def test_shut_lips_divide_the_path(person: DrawnPerson, bank: MouthBank) -> None:
    """After shut lips, the path is the same whatever came before; decisions come at once there."""
    shut = shut_lips(person.mouth(0))
    middle = [TargetFrame(frame, shut, person.pose(frame)) for frame in range(20, 27)]
    after = [person.target(frame) for frame in range(27, 50)]
    one, other = ([person.target(at, index=frame) for frame, at in enumerate(range(first, first + 20))] for first in (300, 500))
    ends = [[source for source in chosen(bank, [*before, *middle, *after]) if source.frame_index >= 26] for before in (one, other)]
    assert ends[0] == ends[1]
    path = InsidePath(InsideCosts(bank))
    decided = [source.frame_index for frame in [*one, *middle] for source in path.push(frame)]
    assert decided == list(range(26))


def test_path_costs_least(person: DrawnPerson, bank: MouthBank, monkeypatch: pytest.MonkeyPatch) -> None:
    """No single change of a source makes the path cheaper."""
    monkeypatch.setattr(inside_path, "_LEFT", 1000)
    targets = [person.target(frame) for frame in range(203, 211)]
    assert min(mouth_opening(target.mouth) for target in targets) > 4.0
    costs = InsideCosts(bank)
    windows = [targets[0].mouth] * 6
    fits = []
    for target in targets:
        windows = [*windows[1:], target.mouth]
        fits.append(window_costs(bank, np.stack(windows), target.pose.rotation))
    changes = costs.cuts(np.arange(len(costs.footage)))
    for before, cost in costs.runs:
        rows = np.flatnonzero(before >= 0)
        changes[before[rows], rows] = np.minimum(changes[before[rows], rows], cost)

    def total(path: list[int]) -> float:
        return float(
            sum(fit[at] for fit, at in zip(fits, path, strict=True))
            + sum(changes[a, b] for a, b in zip(path, path[1:], strict=False))
        )

    path = [costs.footage.tolist().index(source.bank_frame_index) for source in chosen(bank, targets)]
    least = total(path)
    for place in range(len(path)):
        for other in range(len(costs.footage)):
            assert total([*path[:place], other, *path[place + 1 :]]) >= least - 1e-3


def test_long_open_mouth_is_decided(person: DrawnPerson, bank: MouthBank, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mouth that never shuts is decided after a bounded number of frames, and the path goes on from there."""
    monkeypatch.setattr(inside_path, "MOST_HELD", 10)
    targets = [person.target(203, index=frame) for frame in range(40)]
    path = InsidePath(InsideCosts(bank))
    counts = [len(path.push(target)) for target in targets]
    assert max(np.cumsum(np.ones(40)) - np.cumsum(counts)) <= 10
    assert jumps([source.bank_frame_index for source in chosen(bank, targets)], targets) == 0


def test_path_goes_on_in_another_call(person: DrawnPerson, bank: MouthBank, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that begins with the last answered frames chooses as the whole path does, after each decision."""
    monkeypatch.setattr(inside_path, "MOST_HELD", 10)
    shut = shut_lips(person.mouth(0))
    targets = [person.target(frame) for frame in SHOT if frame not in {230, 231}]
    targets[40:43] = [replace(target, mouth=shut) for target in targets[40:43]]
    whole = chosen(bank, targets)
    path = InsidePath(InsideCosts(bank))
    done = np.cumsum([len(path.push(target)) for target in targets])
    for count in sorted({*done.tolist()} - {0}):
        last = zip(targets[:count][-5:], whole[:count][-5:], strict=True)
        before = [replace(one, context_only=True, inside_frame_index=source.bank_frame_index) for one, source in last]
        assert chosen(bank, [*before, *targets[count:]]) == whole[count:]


def test_unknown_answer_is_refused(person: DrawnPerson, bank: MouthBank) -> None:
    with pytest.raises(InvalidRequestError, match="answers no frame 45"):
        InsidePath(InsideCosts(bank)).push(replace(person.target(7), context_only=True, inside_frame_index=45))


def test_frames_out_of_order_are_refused(person: DrawnPerson, bank: MouthBank) -> None:
    path = InsidePath(InsideCosts(bank))
    path.push(person.target(7))
    with pytest.raises(InvalidRequestError, match="7 came after 7"):
        path.push(person.target(7))


def test_held_inside_keeps_runs(person: DrawnPerson, bank: MouthBank) -> None:
    """Without the future, the source still changes less often than the best frame of each moment."""
    frames = [person.target(frame) for frame in SHOT]
    found = [source.bank_frame_index for source in held(bank, frames)]
    assert jumps(found, frames) < 0.6 * jumps(best_alone(bank, frames), frames)


def test_insides_are_compared_in_one_shape(bank: MouthBank) -> None:
    """Two openings of one inside are alike; insides of another brightness differ by that."""
    samples = inside_samples(bank)
    inner = samples[:, 2:-2, 4:-4]
    wide = [row for row in range(bank.num_frames) if mouth_opening(bank.mouth[row]) > 6.0]
    assert inner[wide].std(axis=(1, 2)).max() < 30.0
    costs, rows = InsideCosts(bank), bank.window_rows[:, -1]
    means = inner.mean(axis=(1, 2, 3))[rows]
    apart = np.abs(means[:, None] - means)
    assert np.corrcoef(apart.ravel(), costs.apart.ravel())[0, 1] > 0.9


def says_s(frame: int) -> bool:
    """Whether the drawn person says an s: five frames of each ten."""
    return frame % 10 < 5


def spoken(person: DrawnPerson, frame: int, *, s: bool) -> Float32:
    """The mouth that goes with the speech of a frame: an s moves the corners of the lips, and the tracker does not see that."""
    mouth = person.mouth(frame)
    mouth[0, 0] += SIDEWAYS_PX if s else -SIDEWAYS_PX
    return mouth


@pytest.fixture(scope="module")
def speaker(person: DrawnPerson) -> MouthBank:
    """Bank of a person who shows bright teeth in each s, and the dark in all other frames, between the same lips."""
    frames = []
    for number in range(150):
        frame = person.bank_frame(number)
        if says_s(number):
            frame.box[frame.box.mean(axis=2) < 60] = 220
        frames.append(replace(frame, spoken_mouth=spoken(person, number, s=says_s(number))))
    return build_bank(frames)


def right_insides(person: DrawnPerson, bank: MouthBank, choose: Choice) -> float:
    """Share of open target mouths of new speech, with an s in other frames than the bank's, that get the inside of their sound."""
    said = {frame: frame % 14 < 7 for frame in SHOT}
    targets = [replace(person.target(frame), mouth=spoken(person, frame, s=s)) for frame, s in said.items()]
    parted = [source for source, target in zip(choose(bank, targets), targets, strict=True) if mouth_opening(target.mouth) > 4.0]
    return float(np.mean([says_s(source.bank_frame_index) == said[source.frame_index] for source in parted]))


@pytest.mark.parametrize("choose", [chosen, held])
def test_speech_chooses_inside(person: DrawnPerson, speaker: MouthBank, choose: Choice) -> None:
    """Between lips that look the same, the speech decides whether teeth show."""
    assert right_insides(person, speaker, choose) > 0.85
    assert right_insides(person, replace(speaker, spoken_mouth=None), choose) < 0.7


def test_few_insides_teach_nothing(person: DrawnPerson, speaker: MouthBank) -> None:
    """With fewer than thirty open mouths, the lips alone decide."""
    frames = [replace(person.bank_frame(number), spoken_mouth=spoken(person, number, s=says_s(number))) for number in range(20)]
    bank = build_bank(frames)
    assert not InsideCosts(bank).by_speech(person.mouth(3)).any()
    assert InsideCosts(speaker).by_speech(person.mouth(3)).any()
    targets = [person.target(frame) for frame in SHOT]
    assert chosen(bank, targets) == chosen(replace(bank, spoken_mouth=None), targets)


def test_regression_leaves_parts_out() -> None:
    """A part is answered by a regression that was learned from the rows of all other parts."""
    rng = np.random.default_rng(4)
    given = rng.standard_normal((60, 5))
    wanted = given @ rng.standard_normal((5, 3)) + 0.3 * rng.standard_normal((60, 3))
    found = inside_path.left_out_answers(given, wanted, ridge=0.5)
    for part in np.array_split(np.arange(60), 6):
        others = np.setdiff1d(np.arange(60), part)
        weights = np.linalg.solve(given[others].T @ given[others] + 0.5 * np.eye(5), given[others].T @ wanted[others])
        np.testing.assert_allclose(found[part], given[part] @ weights, rtol=1e-9)
