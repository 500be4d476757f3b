"""The soak in a minute and a half: what stays behind in each cycle shows, and every promise is held under its load."""

from pathlib import Path

import pytest

from tests.support.chaos.cluster import ProxiedKafka
from tests.support.soak.run import SHORT, Soak, told

pytestmark = [pytest.mark.chaos, pytest.mark.kafka]


def test_a_short_soak_leaves_nothing_behind(proxied_kafka: ProxiedKafka, tmp_path: Path) -> None:
    """Four cycles of changing load, faults, reloads, replays, pages and a second member: memory, handles, threads and
    tasks are as after the first cycle, within loose bounds; nothing is lost, doubled, out of order or over quota."""
    soak = Soak(proxied_kafka, tmp_path / "soak", SHORT, print)
    try:
        report = soak.run()
    finally:
        soak.close()
    print(told(report))
    assert report.wrong == []
    assert report.done["replays"] and report.done["members joined"] and report.done["rules changed"]
