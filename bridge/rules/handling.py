"""How long, how urgently and under which conditions a rule's actions are delivered: defaults in one place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from bridge.actions import ActionModel, duration_seconds
from bridge.model import Handling, Kind, Lane

MAX_AGE_SECONDS = 86_400.0
"""For what reacts to a moment (trigger, track, enroll): a day later the moment has passed. State never ages."""

_MOMENTS = frozenset({Kind.TRIGGER, Kind.TRACK, Kind.ENROLL})


@dataclass(frozen=True, slots=True)
class RuleOptions:
    """What stands on a rule and holds for all its actions."""

    lane: Lane | None = None
    coalesce: bool = True
    linger_seconds: float = 0.0
    preserve: tuple[str, ...] = ()
    lazy: tuple[str, ...] = ()
    lazy_every_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ActionOptions:
    """What stands beside an action, None where it does not."""

    max_age: str | None = None
    lane: Lane | None = None
    on_missing: str | None = None
    on_suppressed: str | None = None
    order: str | None = None


@dataclass(frozen=True, slots=True)
class Shared:
    """What one rule says and all must keep: paths to preserve, lazy paths, and how often a lazy change is sent."""

    preserve: tuple[str, ...] = ()
    lazy: tuple[str, ...] = ()
    lazy_every_seconds: float = field(default=Handling().lazy_every_seconds)

    @classmethod
    def of(cls, rules: Iterable[RuleOptions]) -> Shared:
        """The union. Where rules name different periods the shortest holds: it is what some reader relies on."""
        rules = list(rules)
        periods = [rule.lazy_every_seconds for rule in rules if rule.lazy_every_seconds is not None]
        return cls(
            preserve=tuple(sorted({path for rule in rules for path in rule.preserve})),
            lazy=tuple(sorted({path for rule in rules for path in rule.lazy})),
            lazy_every_seconds=min(periods, default=Handling().lazy_every_seconds),
        )

    def hold(self, handling: Handling) -> Handling:
        return replace(handling, preserve=self.preserve, lazy=self.lazy, lazy_every_seconds=self.lazy_every_seconds)


def handling_of(kind: Kind, rule: RuleOptions, action: ActionOptions, *, email_known: bool) -> Handling:
    """How an action of this kind is delivered. `email_known`: it names an email, so Meisa can make a contact of it."""
    if action.max_age is None:
        max_age = MAX_AGE_SECONDS if kind in _MOMENTS else None
    else:
        max_age = None if action.max_age == "none" else duration_seconds(action.max_age)
    default_lane = Lane.TRANSACTIONAL if kind is Kind.TRIGGER else Lane.SYNC
    return Handling(
        lane=action.lane or rule.lane or default_lane,
        max_age_seconds=max_age,
        on_missing=action.on_missing or ("upsert" if email_known else "wait"),
        on_suppressed=action.on_suppressed or "finish",
        ordered=action.order != "independent",
        coalesce=rule.coalesce,
        linger_seconds=rule.linger_seconds,
    )


def options_of(action: ActionModel) -> ActionOptions:
    """The options of an action that a handler made."""
    values = action.__dict__
    return ActionOptions(
        max_age=action.max_age,
        lane=action.lane,
        on_missing=values.get("on_missing"),
        on_suppressed=action.on_suppressed,
        order=values.get("order"),
    )
