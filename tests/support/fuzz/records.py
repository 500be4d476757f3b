"""Bad records through the whole path: every one finishes as it is defined to, and nobody's secret shows anywhere."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import structlog

from bridge.config import Settings
from bridge.kafka.letters import headers_of
from bridge.model import Letter, LetterKind, Record
from bridge.observe.history import History
from bridge.observe.logs import configure
from bridge.web import page
from tests.support.fuzz.case import CONTROL, Broken, Report, batches, hold, no_secret
from tests.support.fuzz.corpus import Corpus
from tests.support.fuzz.plant import Plant, settings_in
from tests.support.virtual import run

BATCH = 2_500
HOURS_MAX = 48
"""On the virtual clock: more than everything that waits may wait."""
GROWTH_BYTES_MAX = 256 * 1024 * 1024
"""Of the peak, beyond that of as many good records: a batch holds some huge ones, with their requests and letters."""


@contextmanager
def logging_to(stream: io.StringIO, *, as_json: bool) -> Iterator[None]:
    """All that is logged, at the level at which most is said; logging is global, and put back."""
    root = logging.getLogger()
    handlers, level, before = list(root.handlers), root.level, structlog.get_config()
    configure(stream, "debug", json=as_json)
    try:
        yield
    finally:
        for handler in [each for each in root.handlers if each not in handlers]:
            root.removeHandler(handler)
        for handler in handlers:
            if handler not in root.handlers:
                root.addHandler(handler)
        root.setLevel(level)
        structlog.configure(**before)


def run_records(seed: int, count: int, first: int = 0) -> Report:
    """Raises Broken with the numbers of the batch in which an invariant does not hold."""
    report = Report("records", seed, count)
    corpus = Corpus()
    with TemporaryDirectory() as folder:
        settings = settings_in(Path(folder))
        size = min(BATCH, count)
        _batch(settings, [corpus.plain(number) for number in range(size)], "plain", Counter(), as_json=True)
        plain_bytes = _peak_bytes()
        for numbers in batches(first, count, BATCH):
            records = [corpus.bad(seed, number) for number in numbers]
            try:
                _batch(
                    settings, records, f"{seed} {numbers[0]}", report.outcomes, as_json=bool(numbers[0] // BATCH % 2)
                )
            except Broken as broken:
                again = f"again: make fuzz KIND=records SEED={seed} FIRST={numbers[0]} COUNT={len(numbers)}"
                raise Broken(f"records {numbers[0]} to {numbers[-1]} of seed {seed}: {broken}\n{again}") from None
    grown = _peak_bytes() - plain_bytes
    report.notes.append(f"peak memory {_peak_bytes() >> 20} MiB, {grown >> 20} MiB above good records")
    hold(grown < GROWTH_BYTES_MAX, f"memory grew by {grown:,} bytes above that of good records")
    return report.ended()


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _batch(settings: Settings, records: list[Record], seed: str, outcomes: Counter[str], *, as_json: bool) -> None:
    stream = io.StringIO()
    with logging_to(stream, as_json=as_json):
        run(_carried(settings, records, seed, outcomes))
    look_at_log(stream.getvalue(), as_json=as_json)


async def _carried(settings: Settings, records: list[Record], seed: str, outcomes: Counter[str]) -> None:
    plant = Plant(settings, seed)
    loop = asyncio.get_running_loop()
    for record in records:
        plant.feed(record)
        await asyncio.sleep(0)
    shown = [_page(plant)]
    while not plant.finished():
        hold(loop.time() < HOURS_MAX * 3600, f"not everything finishes: {plant.status.snapshot().waiting_for}")
        await asyncio.sleep(1 if loop.time() < 600 else 60)
    shown.append(_page(plant))
    totals = plant.metrics.totals()
    hold(sum(totals.values()) == len(records), f"{len(records)} records, but outcomes {dict(totals)}")
    hold(not plant.failures, f"the service would have ended: {plant.failures}")
    outcomes.update({str(name): number for name, number in totals.items()})
    outcomes["requests to Meisa"] += plant.transport.requests
    dead: set[tuple[str, int]] = set()
    for letter in plant.letters.letters:
        look_at_letter(letter, plant.fed)
        outcomes[f"letters: {letter.kind}"] += 1
        dead.add((letter.record.topic, letter.record.offset))
    hold(len(dead) == totals.get("dead_lettered", 0), "each dead-lettered record has a letter, and no other")
    for text in shown:
        no_secret("the page or status", text)
    exposition = plant.metrics.render()
    no_secret("the metrics", exposition)
    hold(CONTROL.search(exposition.decode().replace("\n", "")) is None, "the metrics hold control characters")
    await plant.close()


def _page(plant: Plant) -> str:
    """What people see, with contacts shown: the harder case."""
    snapshot, slowest = plant.status.snapshot(), plant.delivery.slowest()
    parts = page.parts(snapshot, History(), slowest, show_contacts=True)
    html = page.as_html(parts)
    hold("<script>alert" not in html and "<img" not in html, "hostile text is markup on the page")
    status = page.as_json(page.facts(snapshot, slowest, show_contacts=True))
    json.loads(status)
    return html + status.decode()


def look_at_letter(letter: Letter, fed: dict[tuple[str, int], Record]) -> None:
    record = letter.record
    came = fed[record.topic, record.offset]
    where = f"the letter of {record.place}"
    hold((record.key, record.value, record.headers) == (came.key, came.value, came.headers), f"{where} has other bytes")
    hold(letter.kind in LetterKind and letter.message, f"{where} does not say why")
    for name, value in headers_of(letter):
        text = (value or b"").decode("utf-8")  # always text
        hold(len(text) <= 8_000 or name.endswith("undelivered_ids"), f"{where}: {name} is not bounded")
        no_secret(f"{where}, {name}", text)
    hold("\n" not in letter.message, f"{where}: its message has several lines")


def look_at_log(text: str, *, as_json: bool) -> None:
    no_secret("the log", text)
    hold("Traceback" not in text, f"a traceback in the log: {text[text.find('Traceback') - 300 :][:3_000]}")
    for line in text.split("\n")[:-1]:
        if as_json:
            try:
                told = json.loads(line)
            except ValueError:
                raise Broken(f"a line of the log is not JSON: {line[:500]!r}") from None
            hold(told.get("level") not in ("error", "critical"), f"an error in the log: {line[:2_000]}")
            hold(told.get("event") != "forged", f"a forged line in the log: {line}")
        else:
            hold(CONTROL.search(line) is None, f"control characters in a line for people: {line[:500]!r}")
