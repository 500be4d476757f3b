"""Names of contacts that are no addresses, masked where they stand by themselves."""

from __future__ import annotations

import pytest

from bridge.observe.masking import mask_names


@pytest.mark.parametrize(
    ("text", "names", "masked"),
    [
        ('{"external_id":"user-4711","plan":"pro"}', ["user-4711"], '{"external_id":"u***","plan":"pro"}'),
        ("user 4711 and 47110", ["4711"], "user 4*** and 47110"),
        ("ab abc", ["ab", "abc"], "a*** a***"),
        ("a.b axb", ["a.b"], "a*** axb"),
        ("nothing", ["", "other"], "nothing"),
        ("a***@example.com", ["a"], "a***@example.com"),
        ("ann@example.com", ["ann@example.com"], "a***@example.com"),
    ],
)
def test_each_name_is_masked_and_nothing_else(text: str, names: list[str], masked: str) -> None:
    assert mask_names(text, names) == masked
