"""Wires everything together, once: the only place that knows all adapters."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import structlog

from bridge import rules, schema_fit
from bridge.core.identity import Identities
from bridge.core.permits import Permits
from bridge.core.progress import decode as decode_progress
from bridge.core.quota import NEVER, Quota
from bridge.core.registers import merged
from bridge.core.retry import Policy
from bridge.core.shares import Shares
from bridge.decoders import decoders, registries
from bridge.errors import LedgerFailed, StartFailed, StoreFailed, UserError
from bridge.introductions import introduction, not_meisa
from bridge.kafka.admin import has_committed, probe
from bridge.kafka.consumer import KafkaSource
from bridge.kafka.letters import KafkaLetters
from bridge.kafka.replays import KafkaLogs
from bridge.loading import load_rules, reread_rules, rules_seen, schema_files
from bridge.meisa.assumed import Assumptions
from bridge.meisa.client import MeisaClient
from bridge.meisa.endpoints import ENDPOINTS
from bridge.model import Call, Event, Kind, Outcome, Plan, Verdict, action_id
from bridge.observe.metrics import Metrics
from bridge.observe.rule_uses import RuleUses
from bridge.ports import Clock, Store
from bridge.replay.desk import Desk
from bridge.replay.service import Replays
from bridge.rules.handlers import sources as handler_sources
from bridge.runtime.clock import SystemClock
from bridge.runtime.delivery import Delivery
from bridge.runtime.duplicates import Duplicates
from bridge.runtime.engine import Engine
from bridge.runtime.garbage import collect_by_the_clock, collect_seldom
from bridge.runtime.keys import RefusedKeys
from bridge.runtime.permissions import Permissions
from bridge.runtime.reloading import Reloading
from bridge.runtime.schemas import Schemas
from bridge.runtime.spend import Spend
from bridge.runtime.status import Status
from bridge.runtime.suppression import SuppressionSync
from bridge.runtime.unchanged import Unchanged
from bridge.scopes import DEFAULT_KEY, missing_scopes, reads_suppressions, unneeded_scopes
from bridge.state import open_ledger, open_store
from bridge.tracing import tracing_of
from bridge.web.server import AdminServer

if TYPE_CHECKING:
    from bridge.config import Secret, Settings
    from bridge.rules import RuleBook
    from bridge.rules.writers import Writers
    from bridge.runtime.reloading import Signature

log = structlog.get_logger(__name__)

START_SECONDS = 10.0
"""How long a start waits for a broker before it says that there is none."""
PING_AGAIN_SECONDS = 0.02
"""Between looks whether the first call may leave: the group's assignment takes seconds, the commit milliseconds."""
DRAIN_SHARE = 0.8
"""Of `shutdown_timeout` for calls in flight and the last commit; the rest is for leaving the group and closing."""


def run(settings: Settings) -> int:
    """Runs the service until SIGTERM or SIGINT; returns the exit status. Raises UserError where it cannot start."""
    collect_seldom()
    return asyncio.run(serve(settings))


class Bridge:
    """One instance of the service: made, started, stopped once."""

    def __init__(
        self, settings: Settings, book: RuleBook, *, failed: Callable[[str], None], seen: Signature | None = None
    ) -> None:
        """`seen` tells of the rules files before the book was read from them."""
        self._settings = settings
        self._book = book
        self._writers = book.writers(settings.topics)
        """What may be written: by the rules in force, and by all that were since the start."""
        self._uses = RuleUses(book.names)
        self._pings: dict[str, Outcome | None] = {}
        """What each key's first ping was answered."""
        self.store = store_of(settings)
        clock = SystemClock()
        self.metrics = Metrics(topics=sorted(settings.topics))
        meisa = settings.meisa
        self.client = MeisaClient(
            meisa.base_url,
            {name: secret.read for name, secret in secrets(settings).items()},
            allow_http=meisa.allow_http,
            timeout_seconds=meisa.timeout,
            max_in_flight=meisa.max_in_flight,
            assumptions=Assumptions(date_header_is_meisas_clock=meisa.date_header),
            clock=clock,
        )
        limits = limits_of(settings)
        group = settings.kafka.group_id
        shares, permits, self.permissions = self._quotas(limits, clock)
        quotas: dict[str, Quota] = {**shares, **permits}
        self.delivery = Delivery(
            self.client,
            quotas,
            clock=clock,
            meter=self.metrics,
            policy=policy_of(settings),
            identify=lambda record, action: action_id(group, record, action),
            max_in_flight=meisa.max_in_flight,
            identities=Identities(store=self.store if self.store.lasting else None),
            store=self.store,
            bulk_after_seconds=settings.delivery.bulk_after,
            unchanged=unchanged_of(settings, self._writers, clock, lambda: self.source.partition_counts(), self.store),
            key_refused=lambda key, outcome: self.keys.refused(key, outcome),
        )
        self.client.may_write = lambda: not self.delivery.sending.held and self.engine.still_ours()
        self.keys = RefusedKeys(self.client, self.delivery, self.client.refresh_keys)
        self.suppressions = SuppressionSync(self.delivery, list(secrets(settings)), clock)
        shutdown = settings.delivery.shutdown_timeout
        self._drain_seconds = shutdown * DRAIN_SHARE
        self.source = KafkaSource(
            settings.kafka.bootstrap_servers,
            group,
            {name: topic.start for name, topic in settings.topics.items()},
            settings.kafka.properties,
            # The engine's budget ends first, so that it can still say what it gave up.
            revoke_seconds=self._drain_seconds + 1.0,
            close_seconds=shutdown,
            stale=of_former_topic,
            lost=self.metrics.lost,
        )
        self.letters = KafkaLetters(
            settings.kafka.bootstrap_servers, settings.dead_letters.topic, settings.kafka.properties
        )
        self.logs = KafkaLogs(settings.kafka.bootstrap_servers, group, settings.kafka.properties)
        made = decoders(settings)
        self.registries = registries(settings)
        schemas = Schemas(made.wires, self.registries) if made.wires else None
        if schemas is not None:
            schemas.fetched = self.metrics.schema_fetched
        self.replays = Replays(
            topic=settings.dead_letters.replays_topic,
            logs=self.logs,
            letters=self.letters,
            decoders=made,
            schemas=schemas,
            plan=lambda event: self._book.plan(event),
            knows_rule=lambda name: name in self._book.names,
            deduplicated=repeats(settings),
            identify=lambda record, action: action_id(group, record, action),
            delivery=self.delivery,
            owned=lambda: {name: each.epoch for name, each in self.engine.partitions.items() if not each.closing},
            clock=clock,
            meter=self.metrics,
        )
        self.duplicates = Duplicates(repeats(settings), clock=clock, store=self.store)
        self.engine = Engine(
            group=group,
            decoders=made,
            schemas=schemas,
            plan=self._plan,
            source=self.source,
            letters=self.letters,
            clock=clock,
            meter=self.metrics,
            delivery=self.delivery,
            revoke_seconds=self._drain_seconds,
            metadata_bytes_max=settings.kafka.offset_metadata_max_bytes,
            failed=failed,
            stop_at=(settings.dead_letters.stop_at.share, settings.dead_letters.stop_at.of),
            spend=Spend(
                shares,
                limits,
                clock=clock,
                meisa_clock=self.delivery.meisa_clock,
                counts=self.source.partition_counts,
                timeout_seconds=meisa.timeout,
            )
            if shares
            else None,
            store=self.store,
            duplicates=self.duplicates,
        )
        if self.permissions is not None:
            self.delivery.sending.short = self.permissions.short
            self.permissions.wake = self.delivery.wake
        self.reloading = Reloading(
            book,
            rules_seen(settings) if seen is None else seen,
            files=lambda: rules.rules_files(settings.rules, settings.base_dir),
            read=lambda: reread_rules(settings, self._book.handlers),
            swap=self._swap_rules,
            fixed=[settings.path, *handler_sources(book.handlers), *schema_files(settings)],
            clock=clock,
            meter=self.metrics,
        )
        self.status = Status(
            self.engine,
            self.delivery,
            clock,
            self.metrics.totals,
            self.metrics.dead_letters_by_kind,
            retention=self.source.retention_seconds,
            saved=lambda: self.metrics.calls_saved,
            rules=lambda: self.reloading.state,
            dedupe_ids=lambda: self.duplicates.remembered,
            traffic=self.metrics.traffic,
            rule_uses=self._uses.states,
        )
        self.metrics.snapshot = self.status.snapshot
        kafka = settings.kafka
        self.desk = Desk(
            lambda: KafkaLogs(kafka.bootstrap_servers, group, kafka.properties),
            self.replays.preparing_on,
            topic=settings.dead_letters.topic,
            replays_topic=settings.dead_letters.replays_topic,
            topics=settings.topics,
            clock=clock,
        )
        admin = settings.admin
        self.admin = AdminServer(
            admin.listen,
            self.metrics,
            self.status.snapshot,
            admin.token.read() if admin.token is not None else None,
            show_contacts=admin.show_contacts,
            resume=self._resume_topic,
            slowest=self.delivery.slowest,
            stuck=self.source.stuck,
            allowed_hosts=admin.allowed_hosts,
            letters=self.desk,
        )
        self.engine.burial.how_to_resume = self.admin.how_to_resume
        self.engine.burial.heard = self._uses.heard
        self.tracing = tracing_of(settings, clock)
        if self.tracing is not None:
            self.engine.trace(self.tracing.traces)
            self.replays.traces = self.tracing.traces
            self.metrics.trace_spans = self.tracing.spans

    def _quotas(
        self, limits: Sequence[tuple[int, float]], clock: Clock
    ) -> tuple[dict[str, Shares], dict[str, Permits], Permissions | None]:
        """The quota of each key: shared by partition, or by a ledger that all instances ask."""
        meisa = self._settings.meisa
        names = secrets(self._settings)
        if meisa.quota.by_partition:
            return {name: Shares(limits, reserve=meisa.quota.reserve) for name in names}, {}, None
        instance = uuid.uuid4().hex
        permits = {
            name: Permits(
                limits, reserve=meisa.quota.reserve, timeout_seconds=meisa.timeout, member=f"{instance}.{name}"
            )
            for name in names
        }
        ledger = open_ledger(meisa.quota.shared, group=self._settings.kafka.group_id)
        return {}, permits, Permissions(permits, ledger, clock=clock, fingerprint=self.client.fingerprint)

    async def start(self) -> None:
        """Joins the group at once, and lets calls leave when Kafka and Meisa have answered.

        Raises StartFailed for a busy port, no broker, a refused key, a key of the other environment, or an address at
        which something else than Meisa answers. An API that cannot be reached is an outage, not a mistake: the service
        starts and waits for it.
        """
        try:
            await self.store.load(["p:"])  # any name: does it answer
            await self.duplicates.load()
        except StoreFailed as error:
            raise StartFailed(str(error)) from None
        if self.permissions is not None:
            await self._share_quota(self.permissions)
        self.source.start(self.engine)
        self.status.state, self.status.introduced = "joining", False
        async with _together() as group:
            # A busy port is told at once; what takes time there (imports) must not delay the first call.
            group.create_task(self.admin.start())
            kafka = group.create_task(self._find_kafka())
            names = list(secrets(self._settings))
            pings = await asyncio.gather(*[group.create_task(self._introduce(name)) for name in names])
            await kafka
            self._pings = dict(zip(names, pings, strict=True))
            self._look_at_scopes(self._pings)
            self.status.introduced = True
            self.delivery.open()
        self.replays.start()
        if reads_suppressions(self._book):
            self.suppressions.start()
        log.info(
            "started: events are taken in and delivered from here",
            admin=self.admin.url,
            topics=sorted(self._settings.topics),
            rules=len(self._book.rules),
        )

    async def _share_quota(self, permissions: Permissions) -> None:
        """Before the group is joined: with its first commit the group is not new any more."""
        kafka = self._settings.kafka
        try:
            await permissions.probe()
        except LedgerFailed as error:
            raise StartFailed(f"meisa.quota.shared: {error}") from None
        called = await asyncio.to_thread(
            has_committed, kafka.bootstrap_servers, kafka.properties, kafka.group_id, START_SECONDS
        )
        permissions.start(first_use=not called)

    def _plan(self, event: Event) -> Plan:
        """The rules' plan of a live event, counted for the dashboard."""
        plan = self.replays.plan(event)
        self._uses.planned(plan)
        return plan

    def _resume_topic(self, topic: str) -> bool | None:
        """On request: True if the topic goes on, False if it was not stopped, None if it is not read here."""
        if topic not in self._settings.topics:
            return None
        if not self.engine.burial.stopped(topic):
            return False
        log.info("a topic that its dead letters had stopped is resumed on request", topic=topic)
        self.engine.resume_topic(topic)
        return True

    async def _find_kafka(self) -> None:
        kafka = self._settings.kafka
        cluster = await asyncio.to_thread(probe, kafka.bootstrap_servers, kafka.properties, START_SECONDS)
        for name in cluster.missing(*self._settings.topics):
            log.warning("a topic does not exist (yet), or may not be seen; its events are read once it is", topic=name)

    def _swap_rules(self, book: RuleBook) -> None:
        """Puts other rules in force, between two events: all that follows from rules follows from these now."""
        before, self._book = self._book, book
        self._uses.in_force(book.names)
        self._writers = self._writers.joined(book.writers(self._settings.topics))
        self.delivery.unchanged.rules_changed(self._writers.others, self._writers.rekeyers, _fingerprint(self._writers))
        if reads_suppressions(book) and not reads_suppressions(before):
            self.suppressions.start()
        for key, outcome in self._pings.items():
            if outcome is not None:  # no call for this: what the start was answered
                self._tell_missing_scopes(key, outcome, known=before.kinds())
        for topic in self.engine.burial.stopped_topics():
            log.info("a topic that its dead letters had stopped goes on with the reloaded rules", topic=topic)
            self.engine.resume_topic(topic)

    def _look_at_scopes(self, pings: Mapping[str, Outcome | None]) -> None:
        for key, scopes in unneeded_scopes(self._settings, self._book, pings).items():
            log.warning(
                "the API key may do more than its work needs, and so may whoever gets hold of it: one without these "
                "scopes would do",
                key=key,
                unneeded_scopes=scopes,
            )

    async def _introduce(self, key: str) -> Outcome | None:
        outcome = await self._ping(key)
        problem = introduction(self._settings, key, outcome) or not_meisa(self._settings, outcome)
        if problem:
            raise StartFailed(problem)
        if outcome is None or outcome.verdict is not Verdict.DELIVERED:
            log.warning(
                "Meisa does not answer properly yet; events are taken in, and calls go on trying",
                key=key,
                status=outcome.status if outcome else None,
                message=outcome.message if outcome else "no room in the quota",
            )
            return None
        self._tell_missing_scopes(key, outcome)
        return outcome

    def _tell_missing_scopes(self, key: str, outcome: Outcome, known: Collection[Kind] = ()) -> None:
        for kind in missing_scopes(self._settings, self._book, key, outcome):
            if kind not in known:
                log.warning(
                    "the API key lacks the scope that rules need: their contacts wait for it, then are dead-lettered",
                    key=key,
                    action=kind,
                    scope=ENDPOINTS[kind].scope,
                )

    async def _ping(self, key: str) -> Outcome | None:
        """The first call of a key. It counts like all others, so it needs a share of the quota: partitions, and an
        acknowledged commit that permits it. None where there is none in time, as in a member without partitions."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            outcome = await self.delivery.ask(Call("ping", key=key))
            if outcome is not None or time.monotonic() >= deadline:
                return outcome
            if self.engine.joined and not self.engine.partitions:
                return None  # a spare member
            now = time.monotonic()
            if now < self.delivery.keys[key].quota.earliest(now, urgent=True) < NEVER:
                return None  # all is used: work waits for longer than a start may
            await asyncio.sleep(PING_AGAIN_SECONDS)

    async def stop(self) -> None:
        """Drains, commits, leaves the group, and closes everything; within `shutdown_timeout`."""
        self.status.state = "draining"
        log.info("stopping: calls in flight are awaited, then the group is left", in_flight=self.delivery.in_flight)
        await self.keys.close()
        await self.suppressions.close()
        await self.replays.hold()
        leaving = asyncio.create_task(self.desk.close())  # beside the rest: with a broker away it takes seconds
        await self.engine.stop(self._drain_seconds)
        await self.replays.close()
        await self.delivery.close()
        if self.permissions is not None:
            await self.permissions.close()
        await self.letters.close()
        await self.logs.close()
        for registry in self.registries.values():
            await registry.close()
        await self.store.close()
        await self.client.close()
        await self.admin.stop()
        await leaving
        if self.tracing is not None:
            await self.tracing.close()


async def serve(settings: Settings, *, stop: asyncio.Event | None = None) -> int:
    """Runs one bridge until a signal, or until `stop` is set. Returns the exit status; raises UserError."""
    seen = rules_seen(settings)
    book = load_rules(settings)
    schema_fit.tell(settings, book)
    ending = stop or asyncio.Event()
    failures: list[str] = []

    def failed(message: str) -> None:
        failures.append(message)
        ending.set()

    bridge = Bridge(settings, book, failed=failed, seen=seen)
    with _signals(ending, bridge.reloading.ask):
        starting = asyncio.create_task(bridge.start())
        told = asyncio.create_task(ending.wait())
        watching = asyncio.create_task(bridge.reloading.run())
        collecting = asyncio.create_task(collect_by_the_clock())
        try:
            await asyncio.wait({starting, told}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                await told
        finally:
            for task in (starting, told, watching, collecting):
                task.cancel()
            await asyncio.gather(starting, told, watching, collecting, return_exceptions=True)
            await bridge.stop()
    if failures:
        raise StartFailed(f"the service ended: {failures[0]}")
    log.info("stopped: everything finished is committed")
    return 0


@contextlib.contextmanager
def _signals(ending: asyncio.Event, reload: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    # Not the loop's handler: taking that away would let a late SIGHUP end the process for a moment.
    before = signal.signal(signal.SIGHUP, lambda number, frame: loop.call_soon_threadsafe(reload))
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


@contextlib.asynccontextmanager
async def _together() -> AsyncIterator[asyncio.TaskGroup]:
    """A task group that raises the first user's error as it is, not as a group."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as errors:
        for error in errors.exceptions:
            if isinstance(error, UserError):
                raise error from None
        raise


def of_former_topic(offset: int, metadata: str, topic_hash: int) -> bool:
    """Whether a commit was made for another topic than the one with this hash; where it does not tell, it was not."""
    progress = decode_progress(offset, metadata)
    return progress is not None and progress.topic is not None and progress.topic != topic_hash


def limits_of(settings: Settings) -> list[tuple[int, float]]:
    """The windows of each key's quota: calls, and seconds."""
    quota = settings.meisa.quota
    return [(quota.per_minute, 60.0), (quota.per_hour, 3600.0)]


def policy_of(settings: Settings) -> Policy:
    """How long calls are tried."""
    meisa = settings.meisa
    return Policy(
        attempts=meisa.retry.attempts,
        max_age_seconds=meisa.retry.max_age,
        idempotency_window_seconds=meisa.idempotency_window,
        scope_wait_seconds=settings.delivery.scope_wait,
        unknown_contact_seconds=settings.delivery.unknown_contact_after,
    )


def secrets(settings: Settings) -> dict[str, Secret]:
    """Every API key by its name: `default`, or the action kind that has one of its own."""
    found: dict[str, Secret] = {DEFAULT_KEY: settings.meisa.api_key}
    for kind, secret in settings.meisa.keys.items():
        found[kind] = secret
    return found


def repeats(settings: Settings) -> dict[str, float]:
    """The topics in which repeated events are looked for, and for how long (seconds)."""
    return {name: topic.dedupe for name, topic in settings.topics.items() if topic.dedupe is not None}


def _fingerprint(writers: Writers) -> bytes:
    """Of what facts about contacts depend on: see runtime/unchanged.py."""
    return hashlib.blake2b(repr(writers).encode(), digest_size=16).digest()


def unchanged_of(
    settings: Settings, writers: Writers, clock: Clock, counts: Callable[[], Mapping[str, int]], store: Store
) -> Unchanged:
    """What needs not be sent because Meisa has it; nothing where no topic is keyed by contact."""
    return Unchanged(
        clock=clock,
        topics=[name for name, topic in settings.topics.items() if topic.keyed_by == "contact"],
        believed_seconds=settings.state.unchanged_for,
        others=writers.others,
        rekeyers=writers.rekeyers,
        counts=counts,
        store=store,
        rules=_fingerprint(writers),
    )


def store_of(settings: Settings, *, patience_seconds: float = 0.05) -> Store:
    """The state store that is configured. Raises StartFailed where it cannot be used."""
    return open_store(
        settings.state.url,
        base_dir=settings.base_dir,
        namespace=settings.kafka.group_id,
        merge=merged,
        patience_seconds=patience_seconds,
    )
