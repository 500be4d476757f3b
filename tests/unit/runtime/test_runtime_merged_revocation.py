"""A merged upsert outlives the revocation of one of its partitions: what is left is sent, as it is."""

import asyncio

from tests.support.engine import P0, P1, House, record
from tests.support.virtual import run


def test_what_a_revocation_leaves_of_a_merged_upsert_says_what_the_rest_said() -> None:
    """The contribution for which the call was planned goes with its partition; the other one's fields leave, not
    those of the first."""

    async def story() -> None:
        house = House()
        house.delivery.hold()
        house.source.assign(P0, P1)
        house.source.feed([record(1, partition=0, coalesce=True), record(2, partition=1, coalesce=True)])
        await house.source.revoke(P0)
        house.delivery.open()
        await asyncio.sleep(1)
        assert house.seqs() == [2]
        assert house.source.committed[P1] == 3

    run(story())
