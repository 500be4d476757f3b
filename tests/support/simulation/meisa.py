"""An imagined Meisa: it counts, refuses, throttles and forgets as the real one is documented to.

A call is applied at some moment between its sending and its answer, or later still where the answer was given up. How
an answer is judged is the client's business, so the real judge does it.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, NamedTuple

import httpx
import orjson

from bridge.meisa.endpoints import ENDPOINTS
from bridge.meisa.judge import Judge, Reply
from bridge.model import Call, Outcome, Verdict, email_key
from tests.support.simulation.events import OWN
from tests.support.simulation.ledger import Ledger, Sent
from tests.support.simulation.scenario import Window
from tests.support.simulation.states import paths
from tests.support.simulation.world import World

IDEMPOTENCY_SECONDS = 3600.0
LATE_SECONDS = 60.0
"""How long after the client gave up a call may still be carried out; the quota's `unanswered_seconds`."""

JSON = {"status": "ok"}


class Answer(NamedTuple):
    status: int
    data: Any
    retry_after: str | None = None


class SimMeisa:
    def __init__(self, world: World, ledger: Ledger) -> None:
        self.world = world
        self.ledger = ledger
        scenario = world.scenario
        self._dice = world.dice("meisa")
        self._judge = Judge()
        self._contacts: dict[str, str] = {}
        self._people: dict[str, dict[str, Any]] = {}
        self._tags: dict[str, dict[str, Any]] = {}
        """By the contact's id."""
        self._sequences: set[str] = set()
        self._keys: dict[str, tuple[float, Answer]] = {}
        self._log: list[tuple[int, float, deque[float]]] = [(limit, s, deque()) for limit, s in scenario.limits]
        everybody = [email_key(f"{chr(97 + n % 26)}{n}@x") for n in range(scenario.contacts)]
        chosen = self._dice.sample(everybody, min(len(everybody), 4))
        self._poison = set(chosen[: scenario.poison])
        self._poison_5xx = set(chosen[2 : 2 + scenario.poison_5xx])
        ledger.states.refused = frozenset(self._poison)
        self._suppressed = set(chosen[3 : 3 + scenario.suppressed])
        self._small = sorted(scenario.calls.items())
        self.calls = 0

    # What a call meets

    def _window(self, kind: str, call: Call) -> Window | None:
        now = self.world.now
        for window in self.world.scenario.windows:
            if window.kind == kind and window.start <= now < window.end and window.scope in ("", call.endpoint):
                return window
        return None

    def fate(self, call: Call) -> str:
        """The fault that this call meets on its way; empty for none."""
        if not self.world.faults_on:
            return ""
        for kind, fate in (("outage_unreachable", "never_sent"), ("outage_silent", "slow"), ("outage_5xx", "5xx")):
            if self._window(kind, call):
                return fate
        drawn = self._dice.random()
        for kind, share in self._small:
            drawn -= share
            if drawn < 0:
                return kind
        return ""

    def judge(self, call: Call, answer: Answer) -> Outcome:
        date = formatdate(self.world.wall, usegmt=True)
        reply = Reply(answer.status, orjson.dumps(answer.data), answer.retry_after, date=date)
        return self._judge.answer(ENDPOINTS[call.endpoint], reply, self.world.wall)

    def fault(self, kind: str) -> Outcome:
        fault: Exception = httpx.ReadError("cut")
        if kind == "never_sent":
            fault = httpx.ConnectError("refused")
        elif kind.startswith("slow"):
            fault = httpx.ReadTimeout("timeout")
        return self._judge.fault(fault)

    # The server

    def serve(self, sent: Sent) -> Answer:
        """One request reaches the server."""
        answer = self._serve(sent)
        self.world.say("meisa", f"{answer.status} to {sent.call.endpoint} {_of(sent.call)} of {sent.member}")
        return answer

    def _serve(self, sent: Sent) -> Answer:
        now, call = self.world.now, sent.call
        self.calls += 1
        faults = self.world.faults_on
        if faults and self._window("401", call):
            return Answer(401, {"error": "invalid key"})
        if faults and self._window("429", call):
            return Answer(429, {"error": "slow down"}, self._dice.choice((None, "1", "30")))
        for limit, seconds, times in self._log:
            while times and times[0] <= now - seconds:
                times.popleft()
            if len(times) >= limit:
                if now >= self.world.spend_unknown_until:
                    self.world.break_promise("4 never over quota", f"more than {limit} calls within {seconds:g} s")
                return Answer(429, {"error": "quota"}, self._dice.choice((None, "5")))
        for _, _, times in self._log:
            times.append(now)
        if call.endpoint == "ping":
            return Answer(200, {"scopes": [], "environment": "live", "product": "x"})
        if faults and self._window("403", call):
            return Answer(403, {"error": "scope"})
        if faults and call.endpoint == "trigger" and self._window("429_guardrail", call):
            return Answer(429, {"error": "this recipient got enough for now"})
        return self._apply(sent, call, call.body or {})

    def _apply(self, sent: Sent, call: Call, body: Any) -> Answer:
        email = email_key(body.get("email") or body.get("to_email") or "")
        if email in self._poison:
            return Answer(400, {"error": "this address is not valid"})
        fields = body.get("custom_fields") or {}
        if "bad" in fields:
            return Answer(400, {"error": "a custom field has a value that is not valid"})
        if self.world.faults_on and call.endpoint == "upsert" and (email in self._poison_5xx or "sick" in fields):
            return Answer(500, {"error": "oops"})
        match call.endpoint:
            case "upsert":
                self.ledger.effect(sent)
                return Answer(200, self._upsert(email, body))
            case "track":
                if email not in self._contacts:
                    return Answer(404, {"error": "no matching contact"})
                self.ledger.effect(sent)
                return Answer(200, {"status": "tracked", "contact_id": self._contact(email)})
            case "enroll":
                if email in self._sequences:
                    self.ledger.effect(sent)
                    return Answer(400, {"error": "the contact is already enrolled"})
                self._contact(email)
                self._sequences.add(email)
                self.ledger.effect(sent)
                return Answer(200, {"status": "enrolled"})
            case "add_tag" | "remove_tag":
                if call.contact_id not in self._contacts.values():
                    return Answer(404, {"error": "no such contact"})
                self.ledger.effect(sent)
                tags = self._tags.setdefault(call.contact_id or "", {})
                if call.endpoint == "add_tag":
                    tags[body["tag_name"]] = {"id": f"tag-{body['tag_name']}", "name": body["tag_name"]}
                else:
                    tags.pop(body["tag_name"], None)
                return Answer(200, {})
            case "trigger":
                return self._trigger(sent, body, email)
        return Answer(404, {"error": "no such resource"})

    def _upsert(self, email: str, body: Any) -> Any:
        """The whole contact, where anybody cares."""
        contact = {"id": self._contact(email), "email": email}
        if self.world.scenario.known is None:
            return contact
        person = self._people.setdefault(email, {"external_id": None, "first_name": "", "custom_fields": {}})
        person.update((name, body[name]) for name in ("external_id", "first_name") if name in body)
        person["custom_fields"].update(body.get("custom_fields") or {})
        tags = self._tags.setdefault(contact["id"], {})
        tags.update((name, {"id": f"tag-{name}", "name": name}) for name in body.get("tag_names") or ())
        return contact | person | {"tags": list(tags.values()), "status": "active"}

    def _trigger(self, sent: Sent, body: Any, email: str) -> Answer:
        if email in self._suppressed:
            return Answer(422, {"error": "the recipient has unsubscribed"})
        key = body.get("idempotency_key")
        known = self._keys.get(key)
        if known is not None and self.world.now - known[0] < IDEMPOTENCY_SECONDS:
            return known[1]
        self.ledger.effect(sent, email_sent=True)
        answer = Answer(200, {"status": "sent", "email_send_id": "1", "contact_id": self._contact(email)})
        if key is not None:
            self._keys[key] = (self.world.now, answer)
        return answer

    def _contact(self, email: str) -> str:
        return self._contacts.setdefault(email, f"contact-{len(self._contacts)}")


class MeisaPort:
    """ports.Meisa of one member: the way to the server and back."""

    def __init__(self, server: SimMeisa, member: str) -> None:
        self._server = server
        self._member = member
        self._dice = server.world.dice(f"way of {member}")
        self.may_write: Callable[[], bool] = lambda: True
        """Asked right before the first byte, as the real client does (bridge/meisa/transport.py)."""

    async def send(self, call: Call) -> Outcome:
        server, world = self._server, self._server.world
        await asyncio.sleep(0)  # aiohttp writes in a task of its own
        if call.body is not None and not self.may_write():  # a ping does nothing that another owner could have done
            return Outcome(Verdict.WITHHELD, message="withheld", detail="never_sent")
        sent = server.ledger.sent(self._member, call)
        fate = server.fate(call)
        world.say(self._member, f"sends {call.endpoint} {_of(call)}" + (f" ({fate})" if fate else ""))
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        latency = world.scenario.latency
        up, down = latency * self._dice.random(), latency * self._dice.random()
        timeout = world.scenario.timeout_seconds
        match fate:
            case "never_sent":
                world.later(up, _settle, future, server.fault(fate))
            case "cut" | "slow":
                world.later(timeout if fate == "slow" else up + down, _settle, future, server.fault(fate))
            case "cut_done":
                world.later(up, server.serve, sent)
                world.later(up + down, _settle, future, server.fault(fate))
            case "slow_done":
                world.later(self._dice.random() * (timeout + LATE_SECONDS - 1), server.serve, sent)
                world.later(timeout, _settle, future, server.fault(fate))
            case "5xx" | "429":
                answer = Answer(503, {"error": "unavailable"})
                if fate == "429":
                    answer = Answer(429, {"error": "slow down"}, self._dice.choice((None, "0", "2", "20")))
                world.later(up + down, _settle, future, server.judge(call, answer))
            case _:

                def arrive() -> None:
                    answer = server.serve(sent)
                    if fate == "5xx_done":
                        answer = Answer(502, {"error": "bad gateway"})
                    world.later(down, _settle, future, server.judge(call, answer))

                world.later(up, arrive)
        outcome = await future
        world.say(self._member, f"hears {outcome.verdict} to {call.endpoint} {_of(call)}")
        server.ledger.answered(sent, outcome)
        return outcome

    async def close(self) -> None:
        pass


def _settle(future: "asyncio.Future[Outcome]", outcome: Outcome) -> None:
    if not future.done():
        future.set_result(outcome)


def _of(call: Call) -> str:
    body: Any = call.body or {}
    own = [name[len(OWN) :] for name in body.get("custom_fields") or () if name.startswith(OWN)]
    state = [f"{path.partition('.')[2]}={value}" for path, value in paths(body).items()]
    if own or state:
        return "+".join(own) + (f" {body.get('email')} {' '.join(state)}" if state else "")
    for name in ("properties", "variables", "metadata"):
        part = body.get(name)
        if part:
            return f"{part.get('place')} {body.get('trigger_key', '')}".strip()
    return str(body.get("tag_name") or body.get("tag_names") or body.get("email") or "")
