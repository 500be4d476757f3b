"""Every kind of fault on a real Kafka, in its short form. `make chaos` is the long one: see docs/chaos.md."""

from pathlib import Path

import pytest

from tests.support.chaos.cluster import ProxiedKafka
from tests.support.chaos.kinds import KINDS
from tests.support.chaos.run import SHORT, run

pytestmark = [pytest.mark.chaos, pytest.mark.kafka]


@pytest.mark.parametrize("kind", KINDS)
def test_no_promise_breaks_whatever_goes_wrong(kind: str, proxied_kafka: ProxiedKafka, tmp_path: Path) -> None:
    """Nothing is lost, first effects are in order per contact, contacts end in their last state, no email goes out
    twice, no good event becomes a dead letter (but for an unknown outcome), and no bridge ends by itself. Planned
    changes repeat nothing; a crash only what no commit had told; a faulty API only what it did not answer."""
    report = run(proxied_kafka, tmp_path, kind, SHORT)
    print(f"\n{report.row()}\n{report.details()}")
    assert report.wrong == []
