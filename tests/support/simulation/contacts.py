"""What Meisa knows of each contact, and what a call says of one: a call may stand for several upserts.

Which of them a call carries is read from what it says (events.py), never asked of the bridge.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from bridge.model import Call, Kind, email_key
from tests.support.simulation.events import OWN, TAG, Act
from tests.support.simulation.states import PATHS

PRESERVED = "custom_fields.stage"
_OWN = f"custom_fields.{OWN}"


class Parts:
    """Finds the actions that a call carries out."""

    def __init__(self) -> None:
        self._acts: dict[tuple[str, Kind, str], Act] = {}

    def add(self, act: Act) -> None:
        self._acts[act.own, act.kind, act.trigger_key] = act

    def of(self, call: Call) -> list[Act] | None:
        """None where it carries what no record asked for; nothing for a helper (the upsert before a track)."""
        body = call.body or {}
        wanted: list[tuple[str, Kind, str]] = []
        match call.endpoint:
            case "upsert":
                fields = body.get("custom_fields") or ()
                wanted += [(name[len(OWN) :], Kind.UPSERT, "") for name in fields if name.startswith(OWN)]
                tags = body.get("tag_names") or ()
                wanted += [(name, Kind.ADD_TAG, "") for name in tags if not name.startswith(TAG)]
            case "track":
                wanted.append((body["properties"]["place"], Kind.TRACK, ""))
            case "trigger":
                wanted.append((body["variables"]["place"], Kind.TRIGGER, body["trigger_key"]))
            case "enroll":
                wanted.append((body["metadata"]["place"], Kind.ENROLL, ""))
            case "add_tag" | "remove_tag":
                wanted.append((body["tag_name"], Kind(call.endpoint), ""))
        found = sorted((self._acts[each] for each in wanted if each in self._acts), key=lambda act: act.order)
        return found if len(found) == len(wanted) else None


def wrong_with(call: Call, acts: Sequence[Act], *, lazy: bool) -> str:
    """What is wrong with a call that stands for these upserts (and tags); empty where it says what they say.

    `lazy` says that values of lazy fields may be kept.
    """
    upserts = sorted((act for act in acts if act.kind is Kind.UPSERT), key=lambda act: act.order)
    body: Any = call.body or {}
    if not upserts:
        return ""
    if {act.email for act in acts} != {email_key(body["email"])}:
        return "it mixes contacts"
    if len(acts) > 1 and not all(act.coalesce for act in upserts):
        return "an upsert with `coalesce: false` shares it"
    ids = {act.external_id for act in upserts if act.external_id is not None}
    if ids != ({body["external_id"]} if "external_id" in body else set()):
        return "it names another external_id"
    if len({act.writes[PRESERVED] for act in upserts if PRESERVED in act.writes}) > 1:
        return "a preserved value is merged away"
    # Between partitions order is undefined, so each one's first, or last, may be what counts.
    first: dict[object, Act] = {}
    last: dict[str, dict[object, Any]] = defaultdict(dict)
    for act in sorted(acts, key=lambda act: act.order):
        first.setdefault(act.log, act)  # a tag that rides may be the first, and make the contact
    for act in upserts:
        for path, value in act.writes.items():
            last[path][act.log] = value
    said = _paths(body)
    state = said.keys() & PATHS  # whose that is nobody can tell (states.py)
    said = {path: value for path, value in said.items() if path not in state}
    # Meisa keeps the original source: the first one's, or what it assumes where that one names none. So it is with a
    # kept value that the others joined; its event came first, also where the value itself was put aside meanwhile.
    sources = {act.writes.get("source") for act in first.values()} | ({None} if state or lazy else set())
    if last.pop("source", None) and said.get("source") not in sources:
        return f"source is {said.get('source')}"
    for path, values in last.items():
        if path not in said:
            return f"{path} is missing"
        if said[path] not in values.values():
            return f"{path} is {said[path]} and not {' or '.join(map(str, values.values()))}"
    if said.keys() - last.keys() - {"source"}:
        return f"nobody asked for {sorted(said.keys() - last.keys())}"
    tags = sorted(tag for act in upserts for tag in act.tags)
    if sorted(tag for tag in body.get("tag_names") or () if tag.startswith(TAG)) != tags:
        return f"its tags are {body.get('tag_names')} and not {tags}"
    return ""


def _paths(body: Any) -> dict[str, Any]:
    paths = {name: body[name] for name in ("first_name", "source") if name in body}
    paths.update((f"custom_fields.{name}", value) for name, value in (body.get("custom_fields") or {}).items())
    return paths


class StepBack(NamedTuple):
    """An older value replaces a newer one."""

    path: str
    older: Act
    newer: Act
    newer_at: float


class Contacts:
    """The last word on each field, for each partition by itself."""

    def __init__(self) -> None:
        self._words: dict[tuple[str, str, object], tuple[Act, float]] = {}
        self._doubtful: set[tuple[str, str, object]] = set()

    def upserted(self, call: Call, acts: Iterable[Act], now: float) -> list[StepBack]:
        """A call has effect; returns where the contact went back by it."""
        last: dict[tuple[str, str, object], Act] = {}
        for act in sorted((act for act in acts if act.kind is Kind.UPSERT), key=lambda act: act.order):
            last.update(((act.email, path, act.log), act) for path, value in act.writes.items() if value == act.own)
        said = _paths(call.body or {})
        back = []
        for name, act in last.items():
            before = self._words.get(name)
            if before is None or before[0].order <= act.order:
                self._words[name] = act, now
            elif said[name[1]] == act.own:  # else another partition's upsert in this call hides it
                back.append(StepBack(name[1], act, *before))
                self._words[name] = act, now
        return back

    def excuse(self, step: StepBack) -> None:
        """A call that came late, or of an owner that does not know yet that it is none."""
        self._doubtful.add((step.older.email, step.path, step.older.log))

    def final(self, acts: Iterable[Act]) -> str:
        """What differs from the state that these, in their order, lead to; only those count that had an effect."""
        newest: dict[tuple[str, str, object], Act] = {}
        for act in acts:
            if act.kind is Kind.UPSERT and act.effects:
                for path, value in act.writes.items():
                    name = (act.email, path, act.log)
                    if value == act.own and (name not in newest or newest[name].order < act.order):
                        newest[name] = act
        for name, act in newest.items():
            if name not in self._doubtful and self._words[name][0] is not act:
                return f"{name[1]} of {name[0]} is of {self._words[name][0].name} in the end, and not of {act.name}"
        return ""
