"""One incarnation of the bridge: the real engine, delivery, machines, decoder and rules, over imagined ports.

This is the simulation's `app.py`. What the parts' constructors ask for is known here only.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from bridge.core.identity import Identities
from bridge.core.progress import ASSIGNMENT_BYTES
from bridge.core.retry import Policy
from bridge.core.shares import Shares
from bridge.decode import decoder_for
from bridge.model import Ending, Record, action_id
from bridge.ports import Store
from bridge.runtime.delivery import Delivery
from bridge.runtime.duplicates import Duplicates
from bridge.runtime.engine import Engine
from bridge.runtime.keys import RefusedKeys
from bridge.runtime.spend import Spend
from bridge.runtime.unchanged import Unchanged
from tests.support.fakes import CountingMeter
from tests.support.simulation.broker import Broker
from tests.support.simulation.events import GROUP, TOPIC, rule_book
from tests.support.simulation.ledger import Ledger
from tests.support.simulation.letters import SimLetters
from tests.support.simulation.meisa import MeisaPort, SimMeisa
from tests.support.simulation.source import SimSource
from tests.support.simulation.world import World

_DECODER = decoder_for("json")


class ToldEngine(Engine):
    """The engine, and who hears what it is done with."""

    def __init__(self, *, ended: Callable[[Record, Ending], None], **parts: Any) -> None:
        super().__init__(**parts)
        self._ended = ended

    def finish(self, record: Record, ending: Ending) -> None:
        self._ended(record, ending)
        super().finish(record, ending)


class Member:
    def __init__(
        self, world: World, broker: Broker, meisa: SimMeisa, ledger: Ledger, name: str, store: Store | None = None
    ) -> None:
        self.name = name
        self.world = world
        self.broker = broker
        self.process, self.context = world.process(name)
        self._dice = world.dice(f"life of {name}")
        self.source = SimSource(broker, name, self.context)
        self.stopping = False
        self.stopped_since = 0.0
        if world.scenario.skew:
            self.process.skew = world.dice(f"clock of {name}").uniform(-1, 1) * world.scenario.skew
        self.context.run(self._wire, meisa, ledger, store)

    def _wire(self, meisa: SimMeisa, ledger: Ledger, store: Store | None) -> None:
        world, scenario = self.world, self.world.scenario
        port = MeisaPort(meisa, self.name)
        meter = CountingMeter()
        quotas = {"default": Shares(scenario.limits, reserve=scenario.reserve)}
        self.delivery = Delivery(
            port,
            quotas,
            clock=world.clock,
            meter=meter,
            policy=Policy(
                attempts=scenario.attempts,
                max_age_seconds=scenario.max_age_seconds,
                scope_wait_seconds=scenario.scope_wait_seconds,
            ),
            identify=lambda record, action: action_id(GROUP, record, action),
            max_in_flight=scenario.max_in_flight,
            identities=Identities(store=store if store is not None and store.lasting else None),
            store=store,
            unchanged=self._unchanged(store),
            key_refused=lambda key, outcome: self.keys.refused(key, outcome),
            dice=world.dice(f"backoff of {self.name}"),
        )
        self.keys = RefusedKeys(port, self.delivery, lambda key: None)
        self.engine = ToldEngine(
            ended=lambda record, ending: ledger.ended(self.name, record, ending),
            group=GROUP,
            decoders={TOPIC: _DECODER.decode},
            plan=rule_book(scenario.known).plan,
            source=self.source,
            letters=SimLetters(world, ledger, self.name),
            clock=world.clock,
            meter=meter,
            delivery=self.delivery,
            revoke_seconds=scenario.revoke_seconds,
            failed=lambda message: world.break_promise("5 always alive", f"{self.name} gave up: {message}"),
            window_max=scenario.window_max,
            metadata_bytes_max=scenario.metadata_bytes_max,
            pending_max=scenario.pending_max,
            stop_at=scenario.stop_at,
            store=store,
            spend=Spend(
                quotas,
                scenario.limits,
                clock=world.clock,
                meisa_clock=self.delivery.meisa_clock,
                counts=self.source.partition_counts,
            ),
            duplicates=Duplicates({TOPIC: scenario.dedupe} if scenario.dedupe else {}, clock=world.clock),
        )
        port.may_write = lambda: not self.delivery.sending.held and self.engine.still_ours()

    def _unchanged(self, store: Store | None) -> Unchanged | None:
        """As bridge/app.py."""
        known = self.world.scenario.known
        if known is None:
            return None
        dice = self.world.dice(f"assignments of {self.name}")
        return Unchanged(
            clock=self.world.clock,
            topics=[TOPIC],
            believed_seconds=known.unchanged_for,
            rekeyers=[TOPIC],
            counts=self.source.partition_counts,
            store=store,
            new_id=lambda: dice.randbytes(ASSIGNMENT_BYTES),
        )

    def start(self) -> None:
        self.world.say(self.name, "starts")
        self.context.run(self.source.start, self.engine)
        self.context.run(self.delivery.open)

    def kill(self) -> None:
        self.world.say(self.name, "is killed")
        self.source.die()
        self.process.killed = True

    def stop(self, then: Callable[[], None]) -> None:
        """SIGTERM; `then` is called when the process has ended."""
        self.world.say(self.name, "is asked to stop")
        self.stopping = True
        self.context.run(lambda: asyncio.get_running_loop().create_task(self._stop(then)))

    async def _stop(self, then: Callable[[], None]) -> None:
        await self.keys.close()
        await self.engine.stop(self.world.scenario.revoke_seconds)
        await self.delivery.close()
        self.world.say(self.name, "has ended")
        self.process.killed = True
        self.world.later(0.0, then)

    def look_after(self) -> None:
        """What a person does: lets a topic go on that its dead letters have stopped."""
        if any(waiting.reason == "dead_letter_cap" for waiting in self.context.run(self.engine.waiting)):
            self.world.say("operator", f"resumes the topic at {self.name}")
            self.context.run(self.engine.resume_topic, TOPIC)

    def pause_before_news(self) -> float:
        """After a standstill the news of the group come a little later than what waits in the sockets."""
        return self._dice.random()

    @property
    def lives(self) -> bool:
        return not self.process.killed
