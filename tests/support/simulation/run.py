"""One seed, from its beginning to quiescence."""

import asyncio
import contextlib
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import structlog

from bridge.core import shares
from bridge.model import Ending
from bridge.ports import Store
from bridge.runtime import commits
from bridge.state.memory import MemoryStore
from tests.support.disk import Disk
from tests.support.simulation.broker import Broker
from tests.support.simulation.events import partition_name
from tests.support.simulation.ledger import ALIVE, Ledger
from tests.support.simulation.meisa import SimMeisa
from tests.support.simulation.member import Member
from tests.support.simulation.scenario import Moment, Scenario, draw
from tests.support.simulation.store import SharedStore
from tests.support.simulation.world import PromiseBroken, World
from tests.support.virtual import PROCESS, VirtualLoop, run

WATCH_SECONDS = 30.0
SILENCE_SECONDS = 120.0
"""Lag and nothing achieved for so long: by then the status must name a reason."""


@dataclass(frozen=True, slots=True)
class Report:
    seed: int
    broken: PromiseBroken | None
    trace: tuple[tuple[float, str, str], ...]
    trace_hash: str
    steps: int
    virtual_seconds: float
    calls: int
    effects: int
    repeats: int
    letters: int
    emails: int
    commits: int
    merged: int
    steps_back: int
    skipped: int
    unchanged: int
    lazy: int

    def story(self, lines: int = 60) -> str:
        """What happened last, for a reader."""
        told = [f"{at:12.4f}  {who:8} {what}" for at, who, what in self.trace[-lines:]]
        return "\n".join(
            [*told, "", f"{self.broken or 'all promises held'}", f"replay: make simulate SEED={self.seed}"]
        )


class Simulation:
    def __init__(self, scenario: Scenario, loop: VirtualLoop) -> None:
        self.scenario = scenario
        self.world = World(scenario, loop)
        self.ledger = Ledger(self.world)
        self.broker = Broker(self.world, self.ledger)
        self.meisa = SimMeisa(self.world, self.ledger)
        self.places: list[Member | None] = []
        """Where members live; a dead one leaves its place empty for its successor."""
        self._disks: dict[int, dict[str, bytes]] = {}
        """What the machines' files hold."""
        self._shared: dict[str, bytes] = {}
        self._born = 0
        self._still_since: dict[str, tuple[object, float]] = {}
        loop.set_exception_handler(self._unhandled)

    def _unhandled(self, loop: Any, context: dict[str, Any]) -> None:
        if not self.world.over:
            self.world.break_promise(ALIVE, f"unhandled: {context.get('message')}: {context.get('exception')!r}")

    # The story

    async def tell(self) -> None:
        world, scenario = self.world, self.scenario
        self._produce()
        for _ in range(scenario.members):
            self.places.append(None)
            self._start(len(self.places) - 1)
        for moment in scenario.moments:
            world.at(moment.at, self._happen, moment)
        world.at(WATCH_SECONDS, self._watch)
        await asyncio.sleep(scenario.horizon)
        self._heal()
        bound = world.now + self._patience()
        wait = 1.0
        while not self.ledger.all_done():
            if world.now > bound:
                reasons = [(m.name, m.engine.waiting()) for m in self.places if m]
                world.break_promise(ALIVE, f"not done in time: {self.ledger.rest()}; waiting: {reasons}")
                return
            await asyncio.sleep(wait)
            wait = min(wait * 1.3, 60.0)
        self.ledger.check_contacts()
        self.ledger.check_repeats()
        await self._settle()
        await self._stop_all()

    async def _settle(self) -> None:
        """Lazy fields go in the end, when their period has passed, and nothing undoes what is there."""
        every = self.scenario.known.lazy_every if self.scenario.known is not None else 0.0
        bound = self.world.now + 3 * every + self._at_quota()
        wait = 1.0
        while every and self.ledger.state_differs() and self.world.now < bound:
            await asyncio.sleep(wait)
            wait = min(wait * 1.3, 60.0)
        await asyncio.sleep(every)
        self.ledger.check_states()

    def _at_quota(self) -> float:
        """Seconds in which all calls can be made."""
        calls = self.scenario.records * 4 + 50
        return max((calls / limit + 2) * seconds for limit, seconds in self.scenario.limits) * 2

    def _patience(self) -> float:
        """Seconds that suffice for all that may be left to do: waits that are allowed, then all calls at the quota."""
        scenario = self.scenario
        return 3.0 * 3600.0 + scenario.session_seconds + scenario.scope_wait_seconds + self._at_quota()

    def _produce(self) -> None:
        scenario, dice = self.scenario, self.world.dice("times")
        names = list(self.broker.logs)
        shares = [scenario.records // len(names)] * len(names)
        for name, share in zip(names, shares, strict=True):
            first = int(share * scenario.backlog)
            if first:
                self.broker.produce(name, first)
            left = share - first
            while left > 0:
                count = min(left, dice.choice((1, 1, 3, 10)))
                left -= count
                self.world.at(scenario.horizon * dice.random(), self.broker.produce, name, count)

    def _start(self, place: int) -> None:
        self._born += 1
        name = f"m{place}.{self._born}"
        member = Member(self.world, self.broker, self.meisa, self.ledger, name, self._store(place, name))
        self.places[place] = member
        member.start()

    def _store(self, place: int, name: str) -> Store | None:
        known = self.scenario.known
        if known is None:
            return None
        if known.store == "shared":
            return SharedStore(self.world, self._shared, name)
        return Disk(self._disks.setdefault(place, {})) if known.store == "machine" else MemoryStore()

    # Faults that happen

    def _happen(self, moment: Moment) -> None:
        if not self.world.faults_on:
            return
        place = moment.member % len(self.places)
        member = self.places[place]
        name = partition_name(moment.partition)
        match moment.kind:
            case "join":
                if len(self.places) < 3:
                    self.places.append(None)
                    self._start(len(self.places) - 1)
            case "recreate" | "recreate_silently":
                owner = self.broker.logs[name].owner
                if owner is not None and (owner.busy or not owner.reachable):
                    self.world.later(1.0, self._happen, moment)
                else:
                    self.broker.recreate(name, offsets_stay=moment.kind == "recreate_silently")
            case "truncate":
                self.broker.truncate(name, all_of_it=not moment.steps)
            case "broker_away":
                for each in self.places:
                    if each is not None and each.lives:
                        self._cut_off(each, moment.seconds * 8, expelled=False)
            case _ if member is None or not member.lives or member.stopping:
                pass
            case "crash":
                self.world.loop.after_steps(moment.steps, lambda: self._crash(place, member, moment.seconds))
            case "restart":
                member.stop(lambda: self.world.later(moment.seconds, self._restart, place))
            case "lost":
                source = member.source
                if source in self.broker.members and not source.busy and source.reachable:
                    self.broker.leave(source)
                    source.lose(tuple(source.epochs))
                    self.broker.join(source)
            case "cut_off":
                self._cut_off(member, moment.seconds * 8)
            case "stopped" | "suspended":
                self.world.loop.after_steps(moment.steps, lambda: self._stop(member, moment))

    def _crash(self, place: int, member: Member, seconds: float) -> None:
        if not member.lives:
            return
        if member.process.stopped:
            self.ledger.commit_troubled(member.name)  # what was answered right before could not be told
        member.kill()
        self.world.later(self.scenario.session_seconds, self.broker.expel, member.source)
        self.world.later(seconds, self._restart, place)

    def _restart(self, place: int) -> None:
        member = self.places[place]
        if member is not None and not member.lives:
            self._start(place)

    def _stop(self, member: Member, moment: Moment) -> None:
        """SIGSTOP: everything in it stands still, while the group and Meisa go on."""
        if not self.world.faults_on or not member.lives or not member.source.reachable or member.source.busy:
            return
        seconds = moment.seconds * 8
        self.world.say(member.name, f"is {moment.kind}")
        member.process.stopped = True
        member.stopped_since = self.world.now
        member.source.reachable = False
        if seconds > self.scenario.session_seconds:
            self.world.later(self.scenario.session_seconds, self._expel_if_away, member)
        self.world.later(seconds, self._continue, member, moment.kind)

    def _continue(self, member: Member, kind: str) -> None:
        if not member.lives or not member.process.stopped:
            return
        self.world.say(member.name, "is continued")
        seconds = self.world.now - member.stopped_since
        if kind == "suspended":
            member.process.behind += seconds
        member.source.stood_still(seconds)
        self.world.loop.go_on(member.process)
        # What is in its sockets comes first; then the group's news.
        self.world.later(member.pause_before_news(), self._reconnect, member)

    def _cut_off(self, member: Member, seconds: float, *, expelled: bool = True) -> None:
        """No way to the broker; beyond the session timeout its partitions go to others, unless nobody has a way."""
        source = member.source
        if source.busy or not source.reachable:
            return
        self.world.say(member.name, "is cut off from the broker")
        source.reachable = False
        if expelled and seconds > self.scenario.session_seconds:
            self.world.later(self.scenario.session_seconds, self._expel_if_away, member)
        self.world.later(seconds, self._reconnect, member)

    def _expel_if_away(self, member: Member) -> None:
        if not member.source.reachable:
            self.broker.expel(member.source)

    def _reconnect(self, member: Member) -> None:
        if not member.lives or member.source.reachable or member.process.stopped:
            return
        source = member.source
        self.world.say(member.name, "reaches the broker again")
        source.reachable = True
        if source.joined and source not in self.broker.members:
            source.lose(tuple(source.epochs))
            if not source.closed:
                self.broker.join(source)
        source.carry_on()

    def _heal(self) -> None:
        """All faults end; members that are away come back by themselves."""
        self.world.say("world", "all faults end")
        self.world.faults_on = False
        for member in self.places:
            if member is not None and member.process.stopped:
                self._continue(member, "stopped")
            elif member is not None and not member.source.reachable:
                self._reconnect(member)

    async def _stop_all(self) -> None:
        """A planned stop at the end: it must come to an end, too."""
        stopping = [member for member in self.places if member is not None and member.lives and not member.stopping]
        for member in stopping:
            member.stop(lambda: None)
        bound = self.world.now + 2 * self.scenario.revoke_seconds + 60.0
        while any(member.lives for member in stopping):
            if self.world.now > bound:
                self.world.break_promise(ALIVE, "a planned stop did not end")
                return
            await asyncio.sleep(0.5)

    # Liveness while faults are on

    def _watch(self) -> None:
        world = self.world
        if world.over:
            return
        world.later(WATCH_SECONDS, self._watch)
        for member in self.places:
            if member is None or not member.lives or member.stopping or not member.source.reachable:
                continue
            member.look_after()
            ends = member.source.log_ends()
            state = tuple(
                (name, partition.epoch, partition.offsets.frontier)
                for name, partition in member.engine.partitions.items()
            )
            lag = any(frontier is None or frontier < ends.get(name, 0) for name, _, frontier in state)
            state_now = (state, world.last_effect)
            before, since = self._still_since.get(member.name, (None, world.now))
            if not lag or before != state_now:
                self._still_since[member.name] = (state_now, world.now)
            elif world.now - since >= SILENCE_SECONDS and self._silent(member):
                world.later(0.5, self._look_again, member)  # it may have been between two reasons

    def _silent(self, member: Member) -> bool:
        # A call under way has a timeout.
        return not member.delivery.in_flight and not member.context.run(member.engine.waiting)

    def _look_again(self, member: Member) -> None:
        _, since = self._still_since[member.name]
        if self.world.last_effect <= since and member.lives and member.source.reachable and self._silent(member):
            self.world.break_promise(
                ALIVE, f"{member.name} stands still with lag since {since:.0f} and gives no reason"
            )


def simulate(seed: int | Scenario) -> Report:
    """Runs one seed (or one scenario)."""
    scenario = draw(seed) if isinstance(seed, int) else seed
    loop = VirtualLoop(scenario.seed, shuffle=scenario.shuffle)
    asyncio.set_event_loop(loop)
    simulation = Simulation(scenario, loop)
    world = simulation.world

    async def until_broken() -> None:
        story = asyncio.get_running_loop().create_task(simulation.tell())
        try:
            await asyncio.wait({story, world.failed}, return_when=asyncio.FIRST_COMPLETED)
            if story.done() and not world.failed.done():
                story.result()
        finally:
            world.say("world", "ends")
            world.over = True
            world.failed.cancel()
            story.cancel()

    with _logs(world), _bounds(scenario):
        try:
            run(until_broken(), loop)
        except RuntimeError as error:
            if "no timer" not in str(error) and "spins" not in str(error):
                raise
            world.over = False
            world.break_promise(ALIVE, str(error))
    ledger = simulation.ledger
    return Report(
        seed=scenario.seed,
        broken=world.broken,
        trace=tuple(world.trace),
        trace_hash=world.trace_hash,
        steps=world.steps,
        virtual_seconds=world.now,
        calls=simulation.meisa.calls,
        effects=ledger.effects,
        repeats=ledger.repeats,
        letters=ledger.letters,
        emails=ledger.emails,
        commits=ledger.commits,
        merged=ledger.merged,
        steps_back=ledger.steps_back,
        skipped=ledger.skipped,
        unchanged=ledger.states.endings[Ending.UNCHANGED],
        lazy=ledger.states.endings[Ending.LAZY],
    )


@contextlib.contextmanager
def _bounds(scenario: Scenario) -> Iterator[None]:
    """Bounds that are reached with few records."""
    untold_max, commits.UNTOLD_MAX = commits.UNTOLD_MAX, scenario.untold_max
    ahead_min, shares.AHEAD_MIN = shares.AHEAD_MIN, scenario.ahead_min
    try:
        yield
    finally:
        commits.UNTOLD_MAX, shares.AHEAD_MIN = untold_max, ahead_min


@contextlib.contextmanager
def _logs(world: World) -> Iterator[None]:
    """What the bridge logs from warnings on stands in the trace; a bug that it caught itself breaks a promise."""

    def note(logger: Any, method: str, event: Any) -> Any:
        process = PROCESS.get()
        text = event.pop("event")
        error = event.pop("exc_info", None)
        world.say(process.name if process else "?", f"log: {text} {event}")
        if error or method == "exception":
            where = traceback.format_exc() if error is True else "".join(traceback.format_exception(error))
            world.break_promise("a bug", f"{text} {event}\n{where}")
        raise structlog.DropEvent

    former = structlog.get_config()
    structlog.configure(
        processors=[note],
        wrapper_class=structlog.make_filtering_bound_logger(30),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**former)
