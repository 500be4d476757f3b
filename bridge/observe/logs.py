"""Logs: structured, for people on a terminal and as JSON lines otherwise, addresses and keys masked.

    configure(sys.stderr, "info")
    log = structlog.get_logger("bridge.kafka")
    log.warning("commit refused; these events will be delivered again after a restart", partition="users/3")

Libraries that log through `logging` come out the same way. A line for an operator says the consequence and what to
expect next. Everything is masked before it is rendered, tracebacks included, because addresses hide in error texts.
"""

from __future__ import annotations

import contextlib
import json as json_module
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from bridge.model import TraceContext
from bridge.observe.masking import mask, mask_email, mask_keys
from bridge.observe.printable import printable

__all__ = ["LEVELS", "configure", "mask_email", "mask_keys"]

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

TEXT_MAX = 16_384
"""Characters of one text in a log line; a longer one (an answer's body, a deep traceback) is cut and says so."""

# One line per HTTP request would be most of the log, and metrics count the calls anyway.
_TALKATIVE = ("httpx", "httpcore", "aiohttp", "asyncio", "uvicorn", "uvicorn.error", "uvicorn.access", "urllib3")


def configure(stream: TextIO, level: str = "info", json: bool | None = None, *, show_contacts: bool = False) -> None:
    """Sends all logs of this process to `stream`. Calling it again replaces what it set up before.

    `json` None means: JSON unless the stream is a terminal. Raises ValueError for an unknown level.
    """
    if level.lower() not in LEVELS:
        raise ValueError(f"unknown log level {level!r}; write one of: {', '.join(LEVELS)}")
    number = LEVELS[level.lower()]
    terminal = stream.isatty()
    as_json = not terminal if json is None else json
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,  # a logger made at import must follow a later configure
    )
    renderers: list[Processor] = [_json] if as_json else [_on_one_line, _console(colors=terminal)]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            _add_trace,
            _Masking(show_contacts),
            *renderers,
        ],
    )
    handler = _Handler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(number)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))


_find_trace: Callable[[Mapping[str, Any]], TraceContext | None] | None = None


def name_traces(find: Callable[[Mapping[str, Any]], TraceContext | None]) -> None:
    """From now on lines have the `trace_id` and `span_id` that `find` tells for their fields."""
    global _find_trace
    _find_trace = find


def forget_traces(find: Callable[[Mapping[str, Any]], TraceContext | None]) -> None:
    """Ends that, unless somebody else has taken it over."""
    global _find_trace
    if _find_trace is find:
        _find_trace = None


def _add_trace(logger: WrappedLogger, method: str, event_dict: EventDict) -> EventDict:
    context = None if _find_trace is None else _find_trace(event_dict)
    if context is not None:
        event_dict.setdefault("trace_id", f"{context.trace_id:032x}")
        event_dict.setdefault("span_id", f"{context.span_id:016x}")
    return event_dict


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, so that a second configure finds and replaces it, and leaves those of others alone."""


class _Masking:
    def __init__(self, show_contacts: bool) -> None:
        self._show_contacts = show_contacts

    def __call__(self, logger: WrappedLogger, method: str, event_dict: EventDict) -> EventDict:
        return {str(name): self._clean(value) for name, value in event_dict.items()}

    def _clean(self, value: Any) -> Any:
        if isinstance(value, str) and len(value) > TEXT_MAX:
            more = len(value) - TEXT_MAX
            # Masked with what follows, then cut: an address across the cut must not show its first half.
            head = mask(value[: TEXT_MAX + 320], show_contacts=self._show_contacts)
            return f"{head[:TEXT_MAX]}… ({more} more characters)"
        return mask(value, show_contacts=self._show_contacts)


def _json(logger: WrappedLogger, method: str, event_dict: EventDict) -> str:
    ordered = {name: event_dict.pop(name) for name in ("timestamp", "level", "logger", "event") if name in event_dict}
    line = {**ordered, **event_dict}
    try:
        return orjson.dumps(line).decode()
    except TypeError:  # an integer beyond 64 bits, or half a surrogate pair: logging must not fail for them
        return json_module.dumps(line, default=str)


def _on_one_line(logger: WrappedLogger, method: str, event_dict: EventDict) -> EventDict:
    """Texts of others cannot begin a line that looks like ours, nor tell the terminal anything; a traceback is indented
    so that its lines look like none of ours either."""
    clean = {
        printable(name): printable(value) if isinstance(value, str) else value for name, value in event_dict.items()
    }
    for name in ("exception", "stack"):
        if isinstance(text := event_dict.get(name), str):
            clean[name] = "\n".join(f"  {printable(line)}" for line in text.split("\n"))
    return clean


def _console(*, colors: bool) -> Processor:
    # The traceback is text already, and masked; structlog's own rendering would show what was masked.
    return structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing is logged meanwhile: of a command, its output tells what an operator of a service would read in a log."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)
