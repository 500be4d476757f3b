"""What every ledger of the shared quota must hold to: in memory, and in a Redis by a script; time is the test's."""

from collections.abc import Callable, Iterator
from random import Random

import pytest

from bridge.errors import LedgerFailed, StartFailed
from bridge.ports import Ask, Brake, CountedWindow, EndOfCall, Granted, Ledger
from bridge.state import open_ledger
from bridge.state.ledger import RedisLedger
from tests.support.kafka import unique
from tests.support.ledger import HOLD, MINUTE_AND_HOUR, MemoryLedger, question
from tests.support.redis import RedisServer, redis_server

START = 1_780_000_000.123


class World:
    """One ledger with the time that it sees, and what may befall a Redis."""

    def __init__(self, make: Callable[[Callable[[], float], Callable[[], str]], Ledger]) -> None:
        self.now = START
        self.run = "run1"
        self.ledger = make(lambda: self.now, lambda: self.run)
        self._names = 0

    async def ask(self, ask: Ask, key: str = "k") -> Granted:
        return await self.ledger.ask(key, ask)

    async def begin(self, windows: tuple[CountedWindow, ...] = MINUTE_AND_HOUR) -> None:
        """A group that has never made a call."""
        await self.ask(question(windows, first_use=True))

    def names(self, count: int, kind: str = "u") -> tuple[str, ...]:
        self._names += count
        return tuple(f"m.{number}{kind}" for number in range(self._names - count, self._names))

    async def take(self, count: int, windows: tuple[CountedWindow, ...] = MINUTE_AND_HOUR, key: str = "k") -> list[str]:
        """What is granted of so many urgent calls."""
        names = self.names(count)
        return list(names[: (await self.ask(question(windows, urgent=names), key)).urgent])

    async def tell(self, *permits: str, ago: float | None = 0.0) -> None:
        await self.ask(question(ended=tuple(EndOfCall(each, ago) for each in permits)))

    async def emptied(self) -> None:
        if isinstance(self.ledger, MemoryLedger):
            self.ledger.emptied()
        else:
            assert isinstance(self.ledger, RedisLedger)
            await self.ledger._redis.flushall()

    async def evicted(self) -> None:
        """Only the calls are gone."""
        if isinstance(self.ledger, MemoryLedger):
            self.ledger.evicted("k")
        else:
            assert isinstance(self.ledger, RedisLedger)
            await self.ledger._redis.delete(f"{self.ledger._sentinel}:k")

    def restarted(self) -> None:
        self.run += "x"
        if isinstance(self.ledger, MemoryLedger):
            self.ledger.restarted()


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


def in_redis(server: RedisServer) -> World:
    return World(lambda now, run: RedisLedger(server.url, group=unique("group"), now=now, run=run))


@pytest.fixture(params=["memory", "redis"])
async def world(request: pytest.FixtureRequest) -> World:
    if request.param == "redis":
        return in_redis(request.getfixturevalue("server"))
    return World(lambda now, run: MemoryLedger(now))


async def test_no_window_takes_more_than_its_limit(world: World) -> None:
    """Sixty a minute, whoever asks; then there is room when the first call has ended a window ago."""
    await world.begin()
    first = await world.take(40)
    assert len(first) == 40 and len(await world.take(40)) == 20
    await world.tell(*first)
    world.now += 59.9
    assert await world.take(1) == []
    world.now += 0.2
    assert len(await world.take(60)) == 40


async def test_a_permit_counts_until_its_end_is_told_or_nothing_of_it_can_be_under_way(world: World) -> None:
    """An owner that died tells nothing: its calls count as if they ended when all that may be under way has ended."""
    await world.begin()
    await world.take(60)
    world.now += HOLD + 59.9
    assert await world.take(1) == []
    world.now += 0.2
    assert len(await world.take(1)) == 1


async def test_an_end_is_told_with_its_age_and_never_makes_a_call_count_longer(world: World) -> None:
    """What ended five seconds ago leaves the window five seconds earlier; told again later it changes nothing."""
    await world.begin()
    permits = await world.take(60)
    world.now += 10
    await world.tell(*permits, ago=5.0)
    world.now += 5
    await world.tell(*permits, ago=-60.0)
    world.now += 49.9
    assert await world.take(1) == []
    world.now += 0.2
    assert len(await world.take(1)) == 1


async def test_a_call_that_never_left_counts_nowhere(world: World) -> None:
    """Its permit can be granted to somebody else at once; a name that is not known is no mistake."""
    await world.begin()
    permits = await world.take(60)
    await world.tell(permits[0], "m.unknown", ago=None)
    assert len(await world.take(2)) == 1


async def test_the_hour_binds_where_the_minute_does_not(world: World) -> None:
    """A call needs room in every window; the answer says what is used, and when it is worth asking again."""
    windows = (CountedWindow(60, 60.0, 0), CountedWindow(100, 3600.0, 0))
    await world.begin(windows)
    await world.tell(*await world.take(60, windows))
    world.now += 61
    await world.tell(*await world.take(60, windows))
    answer = await world.ask(question(windows, urgent=world.names(1)))
    assert answer.urgent == 0 and answer.used == (40, 100) and answer.most == (60, 100)
    assert answer.wait_urgent_seconds == pytest.approx(3539, abs=0.01)


async def test_the_reserve_is_for_urgent_calls(world: World) -> None:
    """Of sixty with six in reserve 54 are for all; urgent ones are served first."""
    windows = (CountedWindow(60, 60.0, 6),)
    await world.begin(windows)
    answer = await world.ask(question(windows, urgent=world.names(3), common=world.names(2, "c")))
    assert (answer.urgent, answer.common) == (3, 2)
    assert len(await world.take(49, windows)) == 49
    answer = await world.ask(question(windows, urgent=world.names(9), common=world.names(9, "c")))
    assert (answer.urgent, answer.common) == (6, 0)


async def test_what_is_not_urgent_keeps_to_one_pace_for_all(world: World) -> None:
    """The gap grows with what is used of the window; an urgent call waits for no gap, and makes none."""
    windows = (CountedWindow(60, 60.0, 6),)
    await world.begin(windows)
    given = []
    for _ in range(600):
        answer = await world.ask(question(windows, common=world.names(1, "c")))
        given += [world.now - START] * answer.common
        world.now += 0.1
    assert len(given) == pytest.approx(54, abs=8)
    first, last = given[5] - given[0], given[-1] - given[-6]
    assert first < 1.0 and last > 3.0, "quickly at first, and ever more slowly"
    assert len(await world.take(3, windows)) == 3


async def test_a_turn_that_was_not_used_is_the_next_ones(world: World) -> None:
    """Whose call never left gives its place in the pace back."""
    windows = (CountedWindow(10, 60.0, 1),)
    await world.begin(windows)
    names: tuple[str, ...] = ()
    for _ in range(600):
        taken = world.names(1, "c")
        answer = await world.ask(question(windows, common=taken))
        names += taken[: answer.common]
        world.now += 0.01
    assert (await world.ask(question(windows, common=world.names(1, "c")))).common == 0
    told = (EndOfCall(names[-1], None),)
    assert (await world.ask(question(windows, common=world.names(1, "c"), ended=told))).common == 1


async def test_a_brake_that_one_instance_met_holds_for_all(world: World) -> None:
    """Until it is released nothing is granted; a shorter one does not release a longer one."""
    await world.begin()
    await world.ask(question(brake=Brake(7.0, None)))
    await world.ask(question(brake=Brake(1.0, None)))
    answer = await world.ask(question(urgent=world.names(1)))
    assert (answer.urgent, answer.wait_urgent_seconds, answer.brake_seconds) == (
        0,
        pytest.approx(7.0),
        pytest.approx(7),
    )
    world.now += 7.01
    assert len(await world.take(1)) == 1


async def test_a_neighbour_is_given_way_by_all(world: World) -> None:
    """A 429 that no burst explains: a twentieth less than what was used, and more again with the cube of the time.

    But no less than a quarter of the limit."""
    await world.begin()
    await world.tell(*await world.take(40))
    answer = await world.ask(question(brake=Brake(1.0, 30.0)))
    assert answer.most == (38, 1000)
    world.now += 61
    assert len(await world.take(60)) == 38 + 3
    answer = await world.ask(question(urgent=world.names(1)))
    assert 0 < answer.wait_urgent_seconds <= 20.0, "the ceiling rises before a call leaves the window"
    await world.ask(question(brake=Brake(0.0, 600.0)))
    assert (await world.ask(question())).most == (41, 250), "ten minutes to wait are the hour's; a quarter is left"


async def test_a_small_bucket_is_learnt_by_all(world: World) -> None:
    """A 429 right after a burst: from then on all together run ahead of the even rate by half as much."""
    await world.begin()
    await world.take(9)
    await world.ask(question(brake=Brake(0.0, 1.0)))
    assert (await world.ask(question())).most == (60, 1000)
    world.now += 30
    answer = await world.ask(question(urgent=world.names(9)))
    assert (answer.urgent, answer.wait_urgent_seconds) == (4, pytest.approx(1.0))
    world.now += 1.001
    assert len(await world.take(9)) == 1


async def test_an_emptied_ledger_counts_as_used_up(world: World) -> None:
    """Nobody knows what was used: as much as the limits, until that and what is under way has left the windows."""
    await world.begin()
    await world.take(5)
    await world.emptied()
    answer = await world.ask(question(urgent=world.names(1)))
    assert (answer.urgent, answer.used) == (0, (60, 1000))
    assert answer.lost_seconds == pytest.approx(HOLD + 3600)
    world.now += HOLD + 3599
    assert await world.take(1) == []
    assert await world.take(1, key="another") == [], "what it knew of other keys is lost as well"
    world.now += 1.1
    answer = await world.ask(question(urgent=world.names(1)))
    assert (answer.urgent, answer.lost_seconds) == (1, 0)


async def test_only_a_group_that_never_made_a_call_may_begin_at_once(world: World) -> None:
    """Then each further key is new as well."""
    await world.begin()
    assert len(await world.take(1)) == 1
    assert len(await world.take(1, key="another")) == 1


async def test_calls_that_were_evicted_count_as_used_up(world: World) -> None:
    """The sentinel knows the key, and the key's calls are not there."""
    await world.begin()
    await world.tell(*await world.take(5))
    await world.evicted()
    assert await world.take(1) == []
    world.now += 61 + HOLD
    assert await world.take(1) == [], "the hour"


async def test_after_a_restart_what_may_have_been_lost_counts(world: World) -> None:
    """Since the last write that is known each minute may have seen a minute's calls, and no more."""
    await world.begin()
    await world.tell(*await world.take(10))
    world.now += 90
    world.restarted()
    assert (await world.ask(question())).used == (60, 10 + 2 * 60)
    assert await world.take(1) == []
    world.now += HOLD + 60.1
    assert len(await world.take(100)) == 60
    assert (await world.ask(question())).used == (60, 190)
    world.restarted()
    assert (await world.ask(question())).used[1] == 190 + 60, "and what was lost before"


async def test_a_key_that_rested_is_not_taken_for_evicted(server: RedisServer) -> None:
    """Redis drops its calls long after they ceased to count."""
    world = in_redis(server)
    await world.begin()
    await world.take(5)
    world.now += 3600 + HOLD + 1
    await world.evicted()
    assert len(await world.take(60)) == 60


async def test_both_answer_alike_whatever_is_asked(server: RedisServer) -> None:
    """The fake that other tests believe, and the script."""
    windows = (CountedWindow(6, 10.0, 2), CountedWindow(20, 60.0, 2))
    for seed in range(12):
        dice = Random(seed)
        both = [in_redis(server), World(lambda now, run: MemoryLedger(now))]
        permits: list[str] = []
        for step in range(60):
            seconds = dice.choice([0.0, 0.3, 1.0, 5.0, 11.0, 100.0])
            what, names = dice.random(), (both[0].names(3), both[0].names(3, "c"))
            told = tuple(
                EndOfCall(dice.choice(permits), dice.choice([None, 0.0, 2.0, -6.0]))
                for _ in range(dice.randrange(4) if permits else 0)
            )
            brake = Brake(dice.choice([0.0, 2.0]), dice.choice([None, 0.0, 20.0])) if dice.random() < 0.1 else None
            asked = question(
                windows,
                urgent=names[0][: dice.randrange(4)],
                common=names[1][: dice.randrange(4)],
                ended=told,
                brake=brake,
                first_use=step == 0,
            )
            answers = []
            for world in both:
                world.now += seconds
                if what < 0.03:
                    await world.emptied()
                elif what < 0.06:
                    world.restarted()
                answers.append(await world.ask(asked))
            flat = [[*each[:4], *each.used, *each.most, *each[6:]] for each in answers]
            assert flat[0] == pytest.approx(flat[1], abs=1e-3), (seed, step)
            permits += asked.urgent[: answers[0].urgent] + asked.common[: answers[0].common]


# What only Redis has


async def test_a_redis_that_does_not_answer_is_said_to_and_one_that_is_back_is_used(server: RedisServer) -> None:
    """Without its password; with Redis's own time and run."""
    ledger = open_ledger(server.url, group=unique("group"))
    await ledger.probe()
    assert (await ledger.ask("k", question(urgent=("a.0u",), first_use=True))).urgent == 1
    server.stop()
    for question_to_it in (ledger.ask("k", question(urgent=("a.1u",))), ledger.probe()):
        with pytest.raises(LedgerFailed, match=r"Redis at \S+redis\.sock: "):
            await question_to_it
    server.start()
    answer = await ledger.ask("k", question(urgent=("a.2u",)))
    assert (answer.urgent, answer.used) == (0, (60, 1000)), "it came back empty"
    await ledger.close()


async def test_what_makes_no_sense_is_no_answer(server: RedisServer) -> None:
    """Another type under our name, or a script's words that are none."""
    ledger = RedisLedger(server.url, group=unique("group"))
    await ledger._redis.set(ledger._sentinel, "text")
    with pytest.raises(LedgerFailed, match="WRONGTYPE"):
        await ledger.ask("k", question())
    for nonsense in ("'OK'", "{1, 2}", "'9 0 0 0 0 0;1 1;1 1'", "'nan 0 0 0 0 0;1 1;1 1'", "'0 0 0 0 0 0;1;1'"):
        ledger._script = ledger._redis.register_script(f"return {nonsense}")
        with pytest.raises(LedgerFailed, match="makes no sense"):
            await ledger.ask("k", question())
    await ledger.close()


async def test_a_replica_and_a_wrong_url_are_refused(server: RedisServer) -> None:
    """A replica can't count, and a URL may hold a password, which no message shows."""
    with pytest.raises(StartFailed, match=r"meisa\.quota\.shared is no URL"):
        RedisLedger("redis://:secret@host:port", group="g")
    ledger = RedisLedger("redis://:secret@127.0.0.1:1/0", group="g")
    with pytest.raises(LedgerFailed) as failed:
        await ledger.ask("k", question())
    assert "127.0.0.1:1" in str(failed.value) and "secret" not in str(failed.value)
    await ledger.close()
    replica = RedisLedger(server.url, group="g")
    await replica._redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        with pytest.raises(LedgerFailed, match="replica"):
            await replica.probe()
    finally:
        await replica._redis.execute_command("REPLICAOF", "NO", "ONE")
        await replica.close()
