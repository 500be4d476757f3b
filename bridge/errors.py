"""Every error of the bridge, drawn once.

BridgeError
├── UserError                 somebody's input is wrong; one clear line, never a traceback
│   ├── UsageError            the command line, an unreadable file, a missing secret      exit status 2
│   └── ProblemsFound         the config or the rules have problems, each with its place  exit status 1
├── StartFailed               no broker, a refused key, a missing topic                    exit status 1
│   └── KafkaRefused          no connection to Kafka, and why: TLS, SASL, or nobody there
├── RecordError               one record is bad: it ends as a dead letter, nothing stops
│   ├── DecodeError           its bytes are not the event that its topic promises
│   └── RuleError             a rule could not be applied to it
│       └── MissingField      an expression named a field that it lacks
└── OutsideError              something outside failed; the work waits, nothing is lost
    ├── LetterNotWritten      the dead letter was not acknowledged
    ├── LogFailed             a topic could not be read or written beside the group
    ├── StoreFailed           the state store could not be read or written
    ├── RegistryFailed        the schema registry could not be asked
    ├── UnknownSchema         the schema registry says that it has no such schema
    └── SourceFailed          the consumer cannot go on
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class BridgeError(Exception):
    """The root of all errors that this package raises on purpose."""


class UserError(BridgeError):
    """Input of a person is wrong. `str()` is one line that says what is wrong and what to do."""

    exit_status = 1


class UsageError(UserError):
    """A wrong command line, a file that cannot be read, or a secret that is missing (exit status 2)."""

    exit_status = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a file, with its place: line and column count from 1; 0 means the file as a whole."""

    code: str
    """Stable, e.g. `MB012`; docs/problems.md lists them all."""
    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    hint: str = ""
    """What to write instead."""
    severity: str = "error"
    """`error`, `warning`, or `notice`: what is good to know and nothing wrong."""

    def __str__(self) -> str:
        place = self.file
        if self.line:
            place += f":{self.line}"
            if self.column:
                place += f":{self.column}"
        text = f"{place}: " if place else ""
        text += f"{self.severity} {self.code}: {self.message}"
        return f"{text} ({self.hint})" if self.hint else text


class ProblemsFound(UserError):
    """The configuration or the rules have problems; `problems` holds each with its place."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class StartFailed(UserError):
    """The service cannot start as the world is: no broker, a refused key, a missing topic."""


class KafkaFault(Enum):
    """Where a connection to Kafka fails."""

    UNREACHABLE = "unreachable"
    PROTOCOL = "protocol"
    """TLS, SASL, or neither: the two sides speak differently."""
    CERTIFICATE = "certificate"
    """The broker's is not accepted."""
    CREDENTIALS = "credentials"
    CLIENT_CERTIFICATE = "client certificate"
    """The broker does not accept ours, or wants one."""


class KafkaRefused(StartFailed):
    """No connection to Kafka, and why. Holds no secret. `setting` is the route below `kafka` of what to look at."""

    def __init__(self, fault: KafkaFault, message: str, cure: str, setting: tuple[str, ...]) -> None:
        self.fault = fault
        self.message = message
        self.cure = cure
        self.setting = setting
        super().__init__(f"{message}; {cure}")


class RecordError(BridgeError):
    """One record is bad. `message` goes into its dead letter; `path` is the field at fault, if any."""

    kind = "decode"

    def __init__(self, message: str, path: str = "") -> None:
        self.message = message
        self.path = path
        super().__init__(message)


class DecodeError(RecordError):
    """A record's bytes are not the event that its topic promises (dead letter `decode`)."""


class RuleError(RecordError):
    """A rule could not be applied to an event (dead letter `rule`)."""

    kind = "rule"


class MissingField(RuleError):
    """An expression named a field that the event lacks: `path`. A `when` is then false; elsewhere the rule fails."""


class OutsideError(BridgeError):
    """Something outside failed. The work that needs it waits; nothing is lost."""


class MeisaFailed(OutsideError):
    """A typed call to Meisa did not give what it was asked for. `str()` is one line and never holds a key."""

    def __init__(self, endpoint: str, verdict: str, status: int | None, message: str, detail: str = "") -> None:
        self.endpoint = endpoint
        self.verdict = verdict
        """A value of `bridge.model.Verdict`."""
        self.status = status
        self.message = message
        self.detail = detail
        super().__init__(f"Meisa {endpoint}: {message}" + (f" (HTTP {status})" if status is not None else ""))


class MeisaRefused(MeisaFailed):
    """Meisa's answer is final: the same call fails again."""


class MeisaUnanswered(MeisaFailed):
    """No final answer, after such repeats as are harmless; with verdict `unknown` it may have been carried out."""


class LetterNotWritten(OutsideError):
    """The broker did not acknowledge a dead letter, so its offset must wait."""


class LogFailed(OutsideError):
    """A topic that is read or written beside the group did not answer; whoever asked may ask again."""


class StoreFailed(OutsideError):
    """The state store could not be read or written; whoever asked may ask again. Never holds a password."""


class LedgerFailed(OutsideError):
    """The shared quota could not be asked; nothing leaves until it can. Never holds a password."""


class RegistryFailed(OutsideError):
    """The schema registry could not be asked; whoever asked may ask again. Never holds a secret."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """Of the HTTP answer, where there was one."""


class UnknownSchema(OutsideError):
    """The schema registry says that it has no such schema. It may have it a moment later, from its leader."""


class SourceFailed(OutsideError):
    """The consumer met an error that it cannot get over by waiting."""
