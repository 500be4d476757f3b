"""The quota's ledger in Redis: what only its adapter can meet."""

import sys

import pytest

from bridge.errors import LedgerFailed, StartFailed
from bridge.state import open_ledger
from bridge.state.ledger import RedisLedger
from tests.support.ledger import question
from tests.support.redis import redis_server


def test_without_the_package_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "bridge.state.ledger", raising=False)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(
        StartFailed, match=r"^meisa\.quota\.shared names a Redis, .* pip install 'meisa-bridge\[redis\]'$"
    ):
        open_ledger("redis://localhost", group="g")


async def test_a_redis_without_room_grants_nothing_and_is_asked_again() -> None:
    """`noeviction`: it refuses to write, and nothing that was counted is dropped for it."""
    with redis_server() as server:
        ledger = RedisLedger(server.url, group="g")
        assert (await ledger.ask("k", question(urgent=("a.0u",), first_use=True))).urgent == 1
        await ledger._redis.config_set("maxmemory", "1")
        with pytest.raises(LedgerFailed, match="maxmemory"):
            await ledger.ask("k", question(urgent=("a.1u",)))
        await ledger._redis.config_set("maxmemory", "0")
        answer = await ledger.ask("k", question(urgent=("a.2u",)))
        assert (answer.urgent, answer.used) == (1, (2, 2))
        await ledger.close()


async def test_the_api_key_is_not_written_and_groups_are_apart() -> None:
    """Names hold the group and what names the key; another group counts for itself."""
    with redis_server() as server:
        for group in ("one", "two"):
            ledger = RedisLedger(server.url, group=group)
            assert (await ledger.ask("0123", question(urgent=("a.0u",), first_use=True))).used == (1, 1)
            names = await ledger._redis.keys("*")
            await ledger.close()
        assert sorted(names) == [
            "meisa-bridge:{one}:quota",
            "meisa-bridge:{one}:quota:0123",
            "meisa-bridge:{two}:quota",
            "meisa-bridge:{two}:quota:0123",
        ]
