"""What later events of a contact wrote, so that a replayed action does not undo it. Pure.

A *watch* stands for one replayed action: the names that its contact has, and what events behind its record do to that
contact. Events may be told in any order and more than once (the log is read while live events come in), except that
names are linked as they are told: an event that knows the contact by a further name makes that name count from then on.

What counts as written: names and custom fields (key by key) of upserts and of a trigger's `recipient`; an email that
belongs to the same external_id, and the reverse (Meisa re-keys a contact by its external_id); the opposite of a tag's
change. `source` is never overwritten by Meisa, so it stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bridge.model import Action, Kind, email_key

NAMES_MAX = 64
"""Names of one contact. An id whose email changes with every event must not make the watch grow with the log."""

WRITERS = frozenset({Kind.UPSERT, Kind.TRIGGER, Kind.ADD_TAG, Kind.REMOVE_TAG})
PLAIN_FIELDS = frozenset({"first_name", "last_name", "display_name"})
NOT_STATE = frozenset({"email", "external_id", "source", "tag_names"})
"""Of a `recipient`: what names the contact, never changes, or only adds."""

_Tag = tuple[str, str]


@dataclass(slots=True)
class Watch:
    """What was written behind `offset` to the contact of one action."""

    offset: int
    names: set[str]
    email: str | None
    external_id: str | None
    fields: set[tuple[str, ...]] = field(default_factory=set)
    added: set[_Tag] = field(default_factory=set)
    removed: set[_Tag] = field(default_factory=set)
    new_email: tuple[int, str] | None = None
    """The newest email of the same external_id, with the offset that says so."""
    new_external_id: tuple[int, str] | None = None


class Later:
    """The watches of one source partition."""

    def __init__(self) -> None:
        self._by_name: dict[str, list[Watch]] = {}

    def watch(self, offset: int, action: Action) -> Watch | None:
        """Watches the contact of an action; None for an action that can undo nothing."""
        if not can_undo(action):
            return None
        contact = action.contact
        watch = Watch(offset, set(), contact.email, contact.external_id)
        self._link(watch, contact.ordering_keys())
        return watch

    def _link(self, watch: Watch, names: Iterable[str]) -> None:
        for name in names:
            if name not in watch.names and len(watch.names) < NAMES_MAX:
                watch.names.add(name)
                self._by_name.setdefault(name, []).append(watch)

    def see(self, offset: int, actions: Iterable[Action]) -> None:
        """An event at `offset` plans these."""
        for action in actions:
            if action.kind not in WRITERS:
                continue
            names = action.contact.ordering_keys()
            found: dict[int, Watch] = {
                id(watch): watch for name in names for watch in self._by_name.get(name, ()) if watch.offset < offset
            }
            for watch in found.values():
                self._link(watch, names)
                _note(watch, offset, action)


def can_undo(action: Action) -> bool:
    """Whether the action could overwrite what a later event wrote."""
    if action.kind is Kind.TRIGGER:
        return bool(action.body.get("recipient"))
    return action.kind in WRITERS


def _note(watch: Watch, offset: int, action: Action) -> None:
    body = action.body
    if action.kind is Kind.ADD_TAG:
        watch.added.add(_tag(body))
    elif action.kind is Kind.REMOVE_TAG:
        watch.removed.add(_tag(body))
    elif action.kind is Kind.TRIGGER:
        recipient = body.get("recipient")
        if isinstance(recipient, Mapping):
            watch.fields.update(_fields(recipient, plain=None))
    else:
        watch.fields.update(_fields(body, plain=PLAIN_FIELDS))
        watch.added.update(("name", name) for name in body.get("tag_names", ()))
        if body.get("email") and body.get("external_id"):
            _note_names(watch, offset, body["email"], body["external_id"])


def _note_names(watch: Watch, offset: int, email: str, external_id: str) -> None:
    """An upsert joined an email to an external_id: of the two Meisa goes by the id, and changes the email."""
    if watch.email is not None and email_key(email) == email_key(watch.email):
        if watch.new_external_id is None or watch.new_external_id[0] <= offset:
            watch.new_external_id = offset, external_id
        if watch.external_id is None:
            watch.external_id = external_id
    if external_id == watch.external_id and (watch.new_email is None or watch.new_email[0] <= offset):
        watch.new_email = offset, email


def _fields(body: Mapping[str, Any], *, plain: frozenset[str] | None) -> Iterable[tuple[str, ...]]:
    for name, value in body.items():
        if name == "custom_fields" and isinstance(value, Mapping):
            yield from (("custom_fields", str(key)) for key in value)
        elif name in plain if plain is not None else name not in NOT_STATE:
            yield (name,)


def _tag(body: Mapping[str, Any]) -> _Tag:
    return ("name", str(body["tag_name"])) if "tag_name" in body else ("id", str(body.get("tag_id")))


def harmless(action: Action, watch: Watch | None) -> Action | None:
    """The action without what later events wrote; None where nothing of it is left to do.

    An upsert is sent even if only its email is left: its event's track and tags may need the contact to exist, and an
    upsert that says nothing overwrites nothing.
    """
    if watch is None:
        return action
    match action.kind:
        case Kind.ADD_TAG:
            return None if _tag(action.body) in watch.removed else action
        case Kind.REMOVE_TAG:
            return None if _tag(action.body) in watch.added else action
        case Kind.TRIGGER:
            recipient = action.body.get("recipient")
            if not isinstance(recipient, Mapping):
                return action
            return _with_body(action, {**action.body, "recipient": _left(recipient, watch)})
        case Kind.UPSERT:
            return _upsert(action, watch)
        case _:
            return action


def _upsert(action: Action, watch: Watch) -> Action:
    body = _left(action.body, watch)
    if "tag_names" in body:
        body["tag_names"] = [name for name in body["tag_names"] if ("name", name) not in watch.removed]
        if not body["tag_names"]:
            del body["tag_names"]
    contact = action.contact
    if watch.new_email is not None and email_key(watch.new_email[1]) != email_key(body.get("email", "")):
        body["email"] = watch.new_email[1]
        contact = contact._replace(email=watch.new_email[1])
    elif watch.new_external_id is not None and watch.new_external_id[1] != body.get("external_id"):
        body.pop("external_id", None)
        contact = contact._replace(external_id=None)
    return replace(_with_body(action, body), contact=contact)


def _left(body: Mapping[str, Any], watch: Watch) -> dict[str, Any]:
    """The fields that nobody wrote later."""
    left = {name: value for name, value in body.items() if (name,) not in watch.fields}
    custom = left.get("custom_fields")
    if isinstance(custom, Mapping):
        left["custom_fields"] = {
            key: value for key, value in custom.items() if ("custom_fields", str(key)) not in watch.fields
        }
        if not left["custom_fields"]:
            del left["custom_fields"]
    return left


def _with_body(action: Action, body: Mapping[str, Any]) -> Action:
    return action if body == action.body else replace(action, body=body)
