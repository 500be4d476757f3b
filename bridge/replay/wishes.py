"""What may be asked for dead letters, and for which it cannot be: the same for commands and pages. Pure but for the
wall clock that names requests."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from bridge.model import LetterKind
from bridge.replay.ledger import Request, State, Wish
from bridge.replay.shelf import Found


@dataclass(slots=True)
class Wishes:
    """What is asked for, and for which letters it cannot be."""

    chosen: list[Found] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    """In the order of `chosen`."""
    skipped: list[tuple[Found, str]] = field(default_factory=list)
    """With the reason for each."""

    @classmethod
    def replays(
        cls, topics: Collection[str], found: Sequence[Found], *, named: bool, overwrite: bool, send_again: bool
    ) -> Wishes:
        """`topics` are those that are read; `named` letters were chosen one by one, not by a filter."""
        wishes = cls()
        options = {"overwrite": overwrite, "send_again": send_again}
        for each in found:
            why = _no_replay(each, topics, named=named, **options)
            if why:
                wishes.skipped.append((each, why))
            else:
                wishes._add(each, Wish.REPLAY, **options)
        return wishes

    @classmethod
    def discards(cls, found: Sequence[Found]) -> Wishes:
        wishes = cls()
        for each in found:
            if each.waits:
                wishes._add(each, Wish.DISCARD)
            else:
                wishes.skipped.append((each, f"it is {each.state.value.replace('_', ' ')}"))
        return wishes

    @property
    def replaying(self) -> bool:
        return any(request.wish is Wish.REPLAY for request in self.requests)

    def _add(self, each: Found, wish: Wish, **options: bool) -> None:
        self.chosen.append(each)
        # Later than any earlier request for it, whatever this machine's clock says: that names the request.
        before = each.request.at if each.request is not None else 0
        at = max(int(time.time() * 1000), before + 1)
        self.requests.append(Request(each.letter.source, each.letter.name, at, wish, each.letter.place, **options))

    def consequence(self, *, overwrite: bool, send_again: bool) -> str:
        """What may come of it, for who has to agree."""
        parts = []
        if overwrite:
            parts.append("overwrite what later events wrote")
        if send_again:
            parts.append("perhaps send emails a second time")
        return f"Replaying {counted(len(self.chosen))} may {' and '.join(parts)}."


def counted(count: int) -> str:
    return "1 dead letter" if count == 1 else f"{count:,} dead letters"


def _no_replay(each: Found, topics: Collection[str], *, named: bool, overwrite: bool, send_again: bool) -> str:
    """Why a letter cannot be replayed like this; empty where it can."""
    if each.letter.source.topic not in topics:
        return f"topic {each.letter.source.topic} is not in the configuration"
    match each.state:
        case State.REPLAYED if not send_again:
            return "it was replayed already; --send-again sends it once more"
        case State.REPLAYED if not named:
            return "it was replayed already; name it to send it once more"
        case State.REFUSED:
            return "it was refused again; a fresh letter stands for it"
        case State.DISCARDED if not named:
            return "it was discarded; name it to replay it all the same"
        case State.REQUESTED:
            asked = each.request
            if asked is not None and (asked.overwrite, asked.send_again) == (overwrite, send_again):
                return "it is requested already"
        case _:
            pass
    if each.letter.kind == LetterKind.UNKNOWN_OUTCOME and not send_again:
        return "it may have been sent already; --send-again sends it all the same"
    return ""
