"""How a member joins its group: by which protocol, and under which name."""

from __future__ import annotations

import pytest

from bridge.kafka.properties import CLASSIC, CONSUMER, for_source


@pytest.mark.parametrize("protocol", [CLASSIC, CONSUMER])
def test_a_static_members_name_reaches_the_group_in_both_protocols(protocol: str) -> None:
    """By it the group knows a restarted member again, and moves no partition meanwhile."""
    config = for_source("b:1", "g", {"group.instance.id": "pod-1"}, protocol)
    assert (config["group.protocol"], config["group.instance.id"]) == (protocol, "pod-1")
    assert "group.instance.id" not in for_source("b:1", "g", {}, protocol)
