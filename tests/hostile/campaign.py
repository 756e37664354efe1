"""Runs many cases on several threads, watches the servers' memory, and gathers what must not happen."""

import queue
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.hostile.bases import BATCH_VIDEOS
from tests.hostile.case import Case, Fault, Outcome
from tests.hostile.children import files_below
from tests.hostile.machine import MACHINE
from tests.hostile.world import GOOD_MEDIA, World

PEAK_GROWTH_BYTES = 1 << 30
"""Resident memory that the six servers together may take beyond what they have when warm, at any moment."""
KEPT_GROWTH_BYTES = 640 << 20
"""Memory that they may keep at the end: pools of the allocator, caches, and work areas of the networks that were used."""
BUSY_SHARE = 0.5
"""Share of one core: servers that use more than this after the last answer still compute for calls that are over."""
QUIET_WITHIN_S = 60.0
"""Seconds in which servers whose callers have all gone compute nothing any more, and have removed what calls left, on a free
machine."""
SETTLE_S = 1.5
"""Seconds after the last answer until the servers are looked at, and for which they are observed."""
SAMPLE_S = 0.25
MORE_TASKS, MORE_HANDLES = 40, 100
"""Tasks, and open files and sockets, that the servers may have beyond those that they had when warm: pools, and calls of other
processes that end a moment later."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault, and the case in which it was seen."""

    number: int
    surface: str
    name: str
    kind: str
    seen: str


@dataclass
class Result:
    """Results of a campaign."""

    seed: int
    cases: int = 0
    seconds: float = 0.0
    by_surface: Counter[str] = field(default_factory=Counter)
    by_code: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    slowest: list[tuple[float, str]] = field(default_factory=list)
    warm_bytes: int = 0
    peak_bytes: int = 0
    end_bytes: int = 0
    restarts: int = 0

    @property
    def named_errors(self) -> int:
        """Cases that ended with an error and without a fault."""
        return self.cases - self.by_code["OK"] - self.by_code["exit 0"] - len({finding.number for finding in self.findings})

    def kinds(self) -> Counter[str]:
        """Findings by kind."""
        return Counter(finding.kind for finding in self.findings)


class Campaign:
    """Runs cases in a world.

    Args:
        world: entered already.
        seed: for the report.
        workers: cases at once.
        on_case: told of each case that ended.
    """

    def __init__(
        self, world: World, seed: int, *, workers: int = 3, on_case: Callable[[Case, Outcome], None] | None = None
    ) -> None:
        self._world = world
        self._workers = workers
        self._on_case = on_case or (lambda case, outcome: None)
        self._lock = threading.Lock()
        self._running: dict[int, str] = {}
        self._turn = threading.Condition()
        self._restart_wanted = False
        self.result = Result(seed)

    def run(self, cases: Sequence[Case]) -> Result:
        """All cases, in the order of their numbers but several at once; then a look at what the servers keep."""
        begin = time.monotonic()
        world, result = self._world, self.result
        result.warm_bytes = result.peak_bytes = world.servers.resident_bytes()
        outside = _names_outside(world)
        waiting: queue.SimpleQueue[Case] = queue.SimpleQueue()
        for case in cases:
            waiting.put(case)
        over = threading.Event()
        watching = threading.Thread(target=self._watch, args=(over,))
        threads = [threading.Thread(target=self._work, args=(waiting,)) for _ in range(self._workers)]
        for thread in (watching, *threads):
            thread.start()
        for thread in threads:
            thread.join()
        self._look_at_servers()
        over.set()
        watching.join()
        for name in sorted(_names_outside(world) - outside):
            self._found(
                Case("campaign", "at the end", _nothing), Fault("outside", f"a new file beside the campaign's folders: {name}")
            )
        result.seconds = time.monotonic() - begin
        return result

    def _work(self, waiting: queue.SimpleQueue[Case]) -> None:
        while True:
            try:
                case = waiting.get_nowait()
            except queue.Empty:
                return
            self._begin(case)
            try:
                outcome = case.run(self._world)
            except Exception:
                outcome = Outcome("campaign", "", (Fault("campaign", traceback.format_exc()[-1500:]),))
            self._note(case, outcome)
            self._end(restart=not self._world.servers.alive or any(fault.kind == "hang" for fault in outcome.faults))

    def _note(self, case: Case, outcome: Outcome) -> None:
        with self._lock:
            result = self.result
            result.cases += 1
            result.by_surface[case.surface] += 1
            result.by_code[outcome.code] += 1
            result.slowest = sorted([*result.slowest, (outcome.seconds, case.name)], reverse=True)[:15]
        for fault in outcome.faults:
            self._found(case, fault)
        self._on_case(case, outcome)

    def _found(self, case: Case, fault: Fault) -> None:
        with self._lock:
            self.result.findings.append(Finding(case.number, case.surface, case.name, fault.kind, fault.seen))

    def _begin(self, case: Case) -> None:
        """Wait while servers are to be restarted: no other case runs then."""
        with self._turn:
            self._turn.wait_for(lambda: not self._restart_wanted)
            self._running[threading.get_ident()] = case.name

    def _end(self, *, restart: bool) -> None:
        """Servers that hang or have ended would fail every further case: the last case that runs starts new ones."""
        with self._turn:
            del self._running[threading.get_ident()]
            self._restart_wanted |= restart
            if self._restart_wanted and not self._running:
                self.result.restarts += 1
                self._world.restart()
                self._restart_wanted = False
                self._turn.notify_all()

    def _watch(self, over: threading.Event) -> None:
        told = 0
        while not over.wait(SAMPLE_S):
            now = self._world.servers.resident_bytes()
            self.result.peak_bytes = max(self.result.peak_bytes, now)
            if now > max(told, self.result.warm_bytes + PEAK_GROWTH_BYTES):
                told = int(1.25 * now)
                names = "; ".join(list(self._running.values()))
                self._found(Case("campaign", names, _nothing), Fault("growth", f"the servers hold {now >> 20} MiB while these run"))

    def _look_at_servers(self) -> None:
        begun = time.monotonic()
        time.sleep(SETTLE_S)
        while (faults := self._faults_at_end()) and time.monotonic() - begun < MACHINE.bound(QUIET_WITHIN_S, since=begun):
            pass
        for fault in faults:
            self._found(Case("campaign", "at the end", _nothing), fault)

    def _faults_at_end(self) -> list[Fault]:
        """Return the work and memory of the servers, measured over some seconds."""
        world, result = self._world, self.result
        faults = []
        before = world.servers.processor_s()
        time.sleep(SETTLE_S)
        share = (world.servers.processor_s() - before) / SETTLE_S
        result.end_bytes = world.servers.resident_bytes()
        if share > BUSY_SHARE:
            faults.append(Fault("hang", f"the servers compute ({share:.1f} cores) after the last answer"))
        if result.end_bytes > result.warm_bytes + KEPT_GROWTH_BYTES:
            grown = result.end_bytes - result.warm_bytes
            faults.append(Fault("growth", f"the servers keep {grown >> 20} MiB more than when they were warm"))
        faults += self._open_faults()
        door = world.servers.door
        made = {world.servers.media / name for place in world.made for name in (place, f"{place}.c2pa")}
        for folder in (world.servers.data / "jobs", world.servers.media, door / "data", door / "media"):
            for path in files_below(folder):
                is_record = folder == door / "data" and "jobs" not in path.relative_to(folder).parts
                # Uploads stay, so that callers can use them and continue them.
                is_upload = path.parent == world.servers.media / "uploads"
                if path.name not in (*GOOD_MEDIA, *BATCH_VIDEOS) and not is_record and not is_upload and path not in made:
                    faults.append(Fault("leftover", f"{path.relative_to(world.servers.folder)}"))
        for path in files_below(world.servers.store):
            if path.name.startswith(".partial"):
                faults.append(Fault("leftover", f"a partial blob: {path.name}"))
        return faults

    def _open_faults(self) -> list[Fault]:
        """Return what the servers have open beyond what they had when they were warm."""
        before = self._world.open_counts
        try:
            now = self._world.servers.counts()
        except RuntimeError as problem:
            return [Fault("hang", str(problem))]
        faults = []
        if now.calls > before.calls:
            faults.append(Fault("leftover", f"{now.calls} calls of the door run whose callers have gone"))
        if now.tasks > before.tasks + MORE_TASKS:
            faults.append(Fault("leftover", f"{now.tasks} tasks; {before.tasks} when the servers were warm"))
        if now.handles > before.handles + MORE_HANDLES:
            faults.append(Fault("leftover", f"{now.handles} open files and sockets; {before.handles} when the servers were warm"))
        return faults


def _names_outside(world: World) -> set[str]:
    """Names where no case has anything to write: the servers' own folder, and the one above the cases'."""
    places = (world.servers.cwd, world.folder)
    return {
        f"{place.name}/{path.name}" for place in places for path in place.iterdir() if path.name not in ("kept", "cases", "out")
    }


def _nothing(world: World) -> Outcome:
    return Outcome("OK")
