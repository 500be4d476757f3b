"""One soak, from an empty topic to a report."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from bridge.sandbox.stream import events
from tests.support.chaos.cluster import DirectKafka, ProxiedKafka
from tests.support.chaos.fleet import Member, Stalled
from tests.support.chaos.judge import Judge, Judgement
from tests.support.soak.phases import CYCLE, EVENTS_PER_CYCLE, QUIET, Phase, at
from tests.support.soak.side import FORMATS
from tests.support.soak.verdict import SPARE_HANDLES, SPARE_TASKS, Flatness, flatness, grown
from tests.support.soak.watch import Sample, held
from tests.support.soak.world import Visitors, World

TICK_SECONDS: Final = 0.5
"""Events are written in groups of so long."""
EVENTS_PER_PERSON: Final = 8
REFUSALS: Final = 5
"""Tracks that Meisa refuses in each cycle, to be replayed."""
REFUSED: Final[Mapping[str, Any]] = {"endpoint": "track", "contact": "side-*", "status": 422, "times": REFUSALS}
DRAIN_SECONDS_MAX: Final = 300.0
HITS: Final = tuple(option for format in FORMATS for option in ("--rule", f"soak-hit-{format}"))
"""Whose dead letters are replayed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, how much."""

    seconds: float = 1800.0
    cycle_seconds: float = 300.0
    rate: float = 40.0
    """Events a second of the demo's stream in a steady phase."""
    side_rate: float = 2.0
    """The same in each topic of another format."""
    per_minute: int = 4_800
    latency_ms: float = 30.0
    sample_seconds: float = 2.0
    reload_seconds: float = 60.0
    bound: int = 1_000
    """People that each cache holds at most (member.py)."""
    growth_max: float = 0.05
    spare_handles: int = SPARE_HANDLES
    seed: int = 1

    @property
    def cycles(self) -> int:
        return round(self.seconds / self.cycle_seconds)


SHORT: Final = Plan(
    seconds=100.0,
    cycle_seconds=25.0,
    rate=25.0,
    side_rate=2.0,
    per_minute=3_600,
    sample_seconds=0.5,
    reload_seconds=10.0,
    bound=100,
    growth_max=0.30,
    spare_handles=40,  # connections to Meisa are kept for seconds, which is as long as a quiet phase
)
"""For CI: an hour's leak of some percent cannot show, a handle or a thread that stays behind in each cycle does."""


@dataclass(slots=True)
class Report:
    plan: Plan
    broker: str
    samples: list[Sample] = field(default_factory=list)
    done: dict[str, int] = field(default_factory=dict)
    """What was done how often."""
    seconds: float = 0.0
    drained_seconds: float = 0.0
    """From the end of the last cycle until everything was delivered."""
    calls: int = 0
    most_in_a_minute: int = 0
    over_quota: int = 0
    """Calls that the server refused for its quota while it granted what the bridge was told."""
    judgement: Judgement = field(default_factory=Judgement)
    side: list[str] = field(default_factory=list)
    """What is wrong in the topics of other formats."""
    broke: list[str] = field(default_factory=list)
    objects: list[dict[str, int]] = field(default_factory=list)
    """Of the quiet phases of the first cycle after the warm-up and of the last: how many objects of each type."""
    log_lines: dict[str, int] = field(default_factory=dict)
    """The measured bridge's warnings and errors, how often each."""

    @property
    def flat(self) -> Flatness:
        return flatness(self.samples)

    @property
    def wrong(self) -> list[str]:
        """What must not be; empty in a good run."""
        flat = self.flat
        judgement = self.judgement
        found = [*flat.wrong(self.plan.growth_max, self.plan.spare_handles), *judgement.broken, *self.side, *self.broke]
        if len(judgement.repeats) + len(judgement.partly) > judgement.unanswered_repeats:
            found.append(
                f"{len(judgement.repeats)} calls repeated and {len(judgement.partly)} in part, but only "
                f"{judgement.unanswered_repeats} of them after a lost answer"
            )
        found += [f"set a contact back: {each}" for each in judgement.set_back]
        if self.over_quota or self.most_in_a_minute > self.plan.per_minute:
            found.append(f"over quota: {self.most_in_a_minute} calls in a minute, {self.over_quota} refused")
        if len(self.objects) > 1:
            before, after = (each.get("Task", 0) for each in (self.objects[0], self.objects[-1]))
            if after > before + SPARE_TASKS:
                found.append(f"asyncio tasks in quiet phases: {before} after the warm-up, {after} at the end")
        return found


class Soak:
    """Carries one plan out."""

    def __init__(self, kafka: ProxiedKafka | DirectKafka, folder: Path, plan: Plan, say: Callable[[str], None]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.plan = plan
        self._say = say
        self._kafka = kafka
        self.report = Report(plan, kafka.kind)
        self.world = World(kafka, folder, plan.per_minute, plan.latency_ms, plan.seed)
        self._dice = random.Random(plan.seed)
        count = int(EVENTS_PER_CYCLE * plan.rate * plan.cycle_seconds * plan.cycles * 1.1)
        people = max(10, count // EVENTS_PER_PERSON)
        self._stream = list(events(plan.seed, count, people, 0.9, max(5, count // 1000), now_wall_seconds=time.time()))
        self._fed = 0
        self._owed = {"main": 0.0, "side": 0.0, "hot": 0.0}
        self._less_quota: list[tuple[float, float]] = []
        """Wall seconds in which the server granted less than the bridge was told."""
        self._jobs: list[threading.Thread] = []
        self._counted: dict[str, int] = dict.fromkeys(
            ("rules changed", "members joined", "replays", "broker restarts", "viewers", "scrapes"), 0
        )
        self._stop = threading.Event()

    def run(self) -> Report:
        """Raises Stalled where the work does not end."""
        world, report = self.world, self.report
        bridge = world.measured(self.plan.bound)
        self._wait_ready(bridge)
        visitors = Visitors(bridge.admin_url, self.plan.seed)
        watcher = threading.Thread(target=self._watch, args=(bridge, visitors), daemon=True)
        self._begun = time.monotonic()
        watcher.start()
        try:
            self._cycles(bridge, visitors)
            report.seconds = self._elapsed()
            self._stop.set()
            watcher.join(30)
            samples = [sample._asdict() | {"held": sample.held._asdict()} for sample in report.samples]
            (world.folder / "samples.json").write_text(json.dumps(samples), encoding="utf-8")
            self._drain(bridge)
        finally:
            self._stop.set()
            visitors.close()
        self._counted |= {"viewers": visitors.viewed, "scrapes": visitors.scraped}
        for member in list(world.members):
            world.terminate(member)
        self._judge(bridge)
        return report

    def close(self) -> None:
        self._stop.set()
        self.world.close()

    def _elapsed(self) -> float:
        return time.monotonic() - self._begun

    @staticmethod
    def _wait_ready(bridge: Member) -> None:
        deadline = time.monotonic() + 60
        while not bridge.status().get("ready"):
            if not bridge.running or time.monotonic() > deadline:
                raise Stalled(f"the bridge does not start\n{bridge.tail()}")
            time.sleep(0.2)

    # Load

    def _cycles(self, bridge: Member, visitors: Visitors) -> None:
        plan = self.plan
        now: tuple[int, Phase | None] = (0, None)
        reload_at, before = plan.reload_seconds, 0.0
        restart_at = (plan.cycles // 2 + CYCLE[0].share / 2) * plan.cycle_seconds
        while (elapsed := self._elapsed()) < plan.cycles * plan.cycle_seconds:
            cycle, phase = at(elapsed, plan.cycle_seconds)
            if (cycle, phase) != now:
                self._enter(cycle, phase, visitors)
                now = cycle, phase
            if elapsed >= reload_at:
                reload_at += plan.reload_seconds
                self.world.change_rules()
                self._counted["rules changed"] += 1
            if elapsed >= restart_at:
                restart_at = float("inf")
                self._job(self._restart_broker)
            self._feed(phase, elapsed - before)
            before = elapsed
            self._supervise()
            time.sleep(max(0.0, TICK_SECONDS - (self._elapsed() - elapsed)))
        self._enter(plan.cycles, CYCLE[-1], visitors)

    def _enter(self, cycle: int, phase: Phase, visitors: Visitors) -> None:
        world, wall = self.world, time.time()
        world.clear_faults()
        if phase.faults:
            world.faults(**phase.faults)
        if phase.quota < 1:
            self._less_quota.append((wall, float("inf")))
        elif self._less_quota and self._less_quota[-1][1] == float("inf"):
            self._less_quota[-1] = (self._less_quota[-1][0], wall)
        world.let(phase.quota)
        visitors.viewers = phase.viewers
        if phase.members > len(world.members):
            world.spawn()
            self._counted["members joined"] += 1
        while phase.members < len(world.members):
            self._wait_ready(world.members[-1])  # a process that still starts just ends on SIGTERM
            world.terminate(world.members[-1])
        if phase.name == CYCLE[0].name:
            world.faults(rules=[dict(REFUSED)])
        if phase.members > 1:
            self._job(self._replay)
        if self.report.samples:
            last = self.report.samples[-1]
            self._say(
                f"{self._elapsed() / 60:5.1f} min  cycle {cycle} {phase.name:12s} {last.held.rss_kb / 1024:6.1f} MB, "
                f"{last.handles} handles, {last.held.threads} threads, {last.calls} calls, {last.pending} pending"
            )

    def _feed(self, phase: Phase, seconds: float) -> None:
        plan, owed = self.plan, self._owed
        owed["main"] += phase.load * plan.rate * seconds
        owed["side"] += phase.side * plan.side_rate * seconds
        owed["hot"] += phase.hot * plan.rate * seconds
        due = {name: int(count) for name, count in owed.items()}
        for name, count in due.items():
            owed[name] -= count
        self.world.feed(self._stream[self._fed : self._fed + due["main"]])
        self._fed += due["main"]
        self.world.hit([*self.world.side.some(due["side"]), *self.world.side.hot(due["hot"])])
        if self.world._failed:
            raise Stalled(f"producing failed: {self.world._failed[:3]}")

    def _supervise(self) -> None:
        for member in self.world.members:
            if not member.running:
                raise Stalled(f"{member.name} ended by itself\n{member.tail()}")

    def _job(self, work: Callable[[], None]) -> None:
        """Does something beside the load."""

        def guarded() -> None:
            try:
                work()
            except Exception as error:
                self.report.broke.append(f"{work.__name__}: {error}")

        thread = threading.Thread(target=guarded, daemon=True)
        thread.start()
        self._jobs.append(thread)

    def _replay(self) -> None:
        self._say("             " + self.world.replay(self.world.members[0], *HITS).strip()[:100])
        self._counted["replays"] += 1

    def _restart_broker(self) -> None:
        if isinstance(self._kafka, ProxiedKafka):
            self._kafka.stop()
            self._kafka.start()
        else:
            self._kafka.restart()
        self._counted["broker restarts"] += 1

    # Watching

    def _watch(self, bridge: Member, visitors: Visitors) -> None:
        counted = -1
        while not self._stop.wait(self.plan.sample_seconds):
            elapsed = self._elapsed()
            cycle, phase = at(elapsed, self.plan.cycle_seconds)
            if cycle >= self.plan.cycles:
                return
            with contextlib.suppress(OSError):
                sample = Sample(
                    elapsed,
                    cycle,
                    phase.name,
                    held(bridge.pid),
                    self.world.state_bytes(),
                    int(visitors.metrics.get("meisa_bridge_calls_total", 0)),
                    int(visitors.metrics.get("meisa_bridge_pending_events", 0)),
                )
                self.report.samples.append(sample)
            late = at(elapsed + self.plan.cycle_seconds * CYCLE[-1].share * 0.3, self.plan.cycle_seconds)[0] > cycle
            # Twice only, because counting collects garbage, which is part of what is measured.
            wanted = cycle >= (self.plan.cycles - 1 if self.report.objects else max(1, self.plan.cycles // 3))
            if phase.name == QUIET and late and wanted and counted < cycle and sample.pending == 0:
                counted = cycle
                os.kill(bridge.pid, signal.SIGUSR2)
                time.sleep(min(2.0, self.plan.sample_seconds))
                with contextlib.suppress(OSError):
                    self.report.objects.append(dict(json.loads(self.world.objects.read_text(encoding="utf-8"))))

    # The end

    def _drain(self, bridge: Member) -> None:
        begun = time.monotonic()
        for job in self._jobs:
            job.join(DRAIN_SECONDS_MAX)
        while not self.world.done():
            self._supervise()
            if time.monotonic() - begun > DRAIN_SECONDS_MAX:
                raise Stalled(self.world.story("the work does not end"))
            time.sleep(0.5)
        self.report.drained_seconds = time.monotonic() - begun
        self.world.replay(bridge, *HITS, "--wait")
        self._counted["replays"] += 1

    def _judge(self, bridge: Member) -> None:
        world, report = self.world, self.report
        ledger = world.ledger()
        letters = world.letters()
        main, replayed = [], set()
        for letter in letters:
            headers = dict(letter.headers())
            if headers["meisa-bridge.source.topic"].decode() == world.topic:
                main.append(letter)
            elif "meisa-bridge.request" in headers:
                request = json.loads(headers["meisa-bridge.request"])
                replayed.add((str(request["email"]), int(request["properties"]["n"])))
        emails = world.emails()
        ours = [each for each in emails if each["trigger_key"] != "soak"]
        produced = self._stream[: self._fed]
        judge = Judge(world.group, world.topic, produced, world.places)
        report.judgement = judge.judge(ledger, ours, world.contacts(), main, world.moments)
        others = [each for each in emails if each["trigger_key"] == "soak"]
        report.side = world.side.judge(ledger, others, replayed)
        report.broke += world.broke
        report.calls = sum(entry["endpoint"] != "ping" for entry in ledger)
        times = [datetime.fromisoformat(entry["received_at"]).timestamp() for entry in ledger]
        report.most_in_a_minute = most_in(sorted(times), 60.0)
        for entry, wall in zip(ledger, times, strict=True):
            if entry["status"] == 429 and not entry["fault"]:
                # The minute after it has what was let through before.
                report.over_quota += not any(begin <= wall <= end + 1.0 for begin, end in self._less_quota)
        report.done = {
            "events": report.judgement.events,
            "events of other formats": sum(world.side.produced.values()),
            "calls": report.calls,
            "dead letters": len(letters),
            **self._counted,
        }
        for line in bridge.lines():
            if line.get("level") in ("warning", "error", "critical"):
                text = f"{line['level']}: {line['event']}"[:120]
                report.log_lines[text] = report.log_lines.get(text, 0) + 1


def most_in(times: Sequence[float], seconds: float) -> int:
    """The most calls in any window of this length."""
    most = first = 0
    for last, now in enumerate(times):
        while times[first] <= now - seconds:
            first += 1
        most = max(most, last + 1 - first)
    return most


def told(report: Report) -> str:
    """The report for people, as Markdown."""
    flat, judgement = report.flat, report.judgement
    rows = [
        ("memory (RSS), median of each cycle", ", ".join(f"{each:.1f}" for each in flat.memory_mb) + " MB"),
        (
            "growth after the warm-up while no more events waited than before",
            f"{flat.growth_kb:+,.0f} KB, {flat.growth:+.1%}",
        ),
        (
            "growth from cycle to cycle (Theil-Sen over equal phases)",
            f"{flat.slope_kb_per_cycle:+,.0f} KB a cycle",
        ),
        ("most events that waited in each cycle", ", ".join(f"{each:,}" for each in flat.waiting)),
        ("file handles in quiet phases", _counts(flat.quiet_handles) + f"; most {flat.peak_handles}"),
        ("threads in quiet phases", _counts(flat.quiet_threads) + f"; most {flat.peak_threads}"),
        ("asyncio tasks in the quiet phases of two cycles", _counts([each.get("Task", 0) for each in report.objects])),
        *(
            (name, ", ".join(f"{each.get(name, 0):,}" for each in report.objects))
            for name in ("(blocks of Python's allocator)", "(KB in use of malloc)")
        ),
        ("state file", ", ".join(f"{each / 1e6:.1f}" for each in _state(report)) + " MB at the end of each cycle"),
        ("calls", f"{report.calls:,} ({60 * report.calls / report.seconds:,.0f} a minute)"),
        ("most in any minute", f"{report.most_in_a_minute:,} of {report.plan.per_minute:,}"),
        ("refused for the quota, but for the phases with less of it", f"{report.over_quota}"),
        ("events lost", f"{len(judgement.lost)}"),
        ("out of order", f"{len(judgement.disorder)}"),
        ("emails twice", f"{len(judgement.emails_twice)}"),
        (
            "calls repeated",
            f"{len(judgement.repeats) + len(judgement.partly)}, {judgement.unanswered_repeats} of them after an answer "
            "that was lost",
        ),
        ("wrong in the topics of other formats", f"{len(report.side)}"),
        *((name, f"{count:,}") for name, count in report.done.items() if name != "calls"),
        ("drained after the last cycle in", f"{report.drained_seconds:.0f} s"),
    ]
    return "| measured | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in rows)


def _counts(series: Sequence[float]) -> str:
    return ", ".join(f"{each:g}" for each in series)


def _state(report: Report) -> list[int]:
    return [
        [sample.state_bytes for sample in report.samples if sample.cycle == cycle][-1]
        for cycle in range(report.plan.cycles)
    ]


def objects_grown(report: Report) -> list[str]:
    """Types of objects of which the last quiet phase has more than the first after the warm-up."""
    return grown(report.objects[0], report.objects[-1]) if report.objects else []
