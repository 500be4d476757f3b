"""Python handlers: functions marked with `@handles` that turn events into actions.

    @handles("invoice.*")
    def invoice(event: Event):
        yield Upsert(email=event.data["email"], custom_fields={"mrr": event.data["mrr"]})

`import bridge` runs this module, so it imports next to nothing.
"""

from __future__ import annotations

import linecache
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from bridge.errors import Problem, ProblemsFound, RuleError

if TYPE_CHECKING:
    from pydantic import ValidationError

    from bridge.actions import ActionModel
    from bridge.model import Event

ENTRY_POINTS = "meisa_bridge.handlers"

ACTIONS_MAX = 1_000
"""Actions that a handler may yield for one event; more is a loop that does not end."""

_ASYNC = 0x80 | 0x200
"""inspect's CO_COROUTINE and CO_ASYNC_GENERATOR, without the import."""

_LIBRARY = str(Path(re.__file__).parent.parent)
"""Python's own library."""

Function = TypeVar("Function", bound=Callable[..., Any])


class Handler(NamedTuple):
    """A marked function: what it matches, and its name, which identifies its actions for ever."""

    name: str
    function: Callable[[Any], Any]
    match: tuple[str, ...]
    topics: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        return str(getattr(self.function, "__module__", ""))


_registered: list[Handler] = []


def handles(*patterns: str, topic: str | None = None, name: str | None = None) -> Callable[[Function], Function]:
    """Marks a function of one Event that yields (or returns) actions for event types that match a pattern.

    A pattern is a type or a glob such as `invoice.*`. `topic` restricts it to one topic; `name` replaces the
    function's own. Renaming a handler changes its actions' ids: what is in flight could be sent twice.
    """
    if not patterns or not all(isinstance(pattern, str) and pattern for pattern in patterns):
        raise TypeError('@handles needs the event types, e.g. @handles("invoice.*")')

    def mark(function: Function) -> Function:
        code = getattr(function, "__code__", None)
        if code is not None and code.co_flags & _ASYNC:
            raise TypeError(f"@handles: {function.__name__} is async; a handler is a plain function or generator")
        topics = () if topic is None else (topic,)
        _registered.append(Handler(name or function.__name__, function, patterns, topics))
        return function

    return mark


def load_handlers(modules: Sequence[str], base_dir: Path, *, entry_points: bool = True) -> list[Handler]:
    """Imports the modules (looked up in `base_dir` too), then the installed entry points; gives their handlers.

    Handlers stand in the order of the modules, within one in the order of the file. Raises ProblemsFound with one
    line for each module that is not found, fails, or has no handlers.
    """
    problems: list[Problem] = []
    found: list[Handler] = []
    for module in modules:
        _take(module, base_dir, found, problems)
    if entry_points:
        from importlib.metadata import entry_points as installed  # 20 ms, only needed here

        for point in sorted(installed(group=ENTRY_POINTS), key=lambda point: point.name):
            if point.module not in modules:
                _take(point.module, base_dir, found, problems)
    if problems:
        raise ProblemsFound(problems)
    return found


def sources(handlers: Iterable[Handler]) -> list[Path]:
    """The files of the modules in which the handlers stand, as far as they have one."""
    files = {getattr(sys.modules.get(handler.module), "__file__", None) for handler in handlers}
    return sorted(Path(file) for file in files if file)


def _take(module: str, base_dir: Path, found: list[Handler], problems: list[Problem]) -> None:
    folder = str(base_dir.resolve())
    sys.path.insert(0, folder)
    known = len(_registered)
    try:
        __import__(module)
    except ModuleNotFoundError as error:
        del _registered[known:]
        if error.name and (module == error.name or module.startswith(error.name + ".")):
            hint = f"it is looked up in {base_dir} and among the installed packages"
            problems.append(Problem("MB140", f"handlers: no module named {module}", hint=hint))
        else:
            problems.append(_import_problem(module, error))
    except (Exception, SystemExit) as error:
        del _registered[known:]
        problems.append(_import_problem(module, error))
    else:
        own = [
            handler for handler in _registered if handler.module == module or handler.module.startswith(module + ".")
        ]
        if not own:
            hint = "mark a function of it with @handles, imported from bridge"
            problems.append(Problem("MB142", f"handlers: {module} has no function marked with @handles", hint=hint))
        found += [handler for handler in own if handler not in found]
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def _import_problem(module: str, error: BaseException) -> Problem:
    """One line with the place in the user's file where the import failed."""
    what = " ".join(str(error).split()) or "no message"
    file, line = "", 0
    if isinstance(error, SyntaxError):
        file, line, what = error.filename or "", error.lineno or 0, error.msg
    else:
        trace = error.__traceback__
        while trace is not None:
            name = trace.tb_frame.f_code.co_filename
            if not name.startswith("<frozen") and name != __file__:
                file, line = name, trace.tb_lineno
            trace = trace.tb_next
    return Problem("MB141", f"handlers: importing {module} failed: {type(error).__name__}: {what}", file, line)


def run_handler(handler: Handler, event: Event) -> list[ActionModel]:
    """The actions that a handler makes of an event. Raises RuleError; its text holds no value of the event."""
    import orjson
    from pydantic import ValidationError

    from bridge.actions import ActionModel

    try:
        made = handler.function(event)
        if made is None:
            return []
        if isinstance(made, ActionModel):
            made = [made]
        if not isinstance(made, Iterable) or isinstance(made, (str, bytes, dict)):
            raise RuleError(f"the handler returned {type(made).__name__}, not an action")
        actions = list(islice((action for action in made if action is not None), ACTIONS_MAX + 1))
    except RuleError:
        raise
    except KeyError as error:
        path = _missing_path(error)
        raise RuleError(f"{path or 'a key'} is missing{_place(error)}", path) from None
    except ValidationError as error:
        raise RuleError(f"{_refusal(error)}{_place(error)}") from None
    except (Exception, SystemExit) as error:
        raise RuleError(f"{type(error).__name__}{_place(error)}") from None
    if len(actions) > ACTIONS_MAX:
        raise RuleError(f"the handler yields more than {ACTIONS_MAX} actions")
    for action in actions:
        if not isinstance(action, ActionModel):
            raise RuleError(f"the handler yielded {type(action).__name__}, not an action")
        try:
            orjson.dumps(action.body())
        except TypeError:
            raise RuleError(f"{type(action).__name__} holds a value that JSON has no form for") from None
    return actions


def _refusal(error: ValidationError) -> str:
    """What pydantic refused, without the value: its own text may hold one."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join([error.title, *(str(part) for part in first["loc"][:1])])
    if first["type"] == "value_error" and first["loc"]:
        return f"{field} is not valid"
    return f"{field}: {first['msg'].removeprefix('Value error, ')}"


def _own_frame(error: BaseException) -> Any:
    """The innermost frame of the handler's own code (not of a library that it called)."""
    trace, own = error.__traceback__, None
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name != __file__ and not name.startswith(("<frozen", _LIBRARY)) and "site-packages" not in name:
            own = trace
        trace = trace.tb_next
    return own


def _place(error: BaseException) -> str:
    trace = _own_frame(error)
    if trace is None:
        return ""
    return f" ({Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})"


_READ = re.compile(r"""\bdata((?:\[(?:"[^"\\]+"|'[^'\\]+')\])+)""")


def _missing_path(error: KeyError) -> str:
    """The path that a handler read in vain. A key is told only where it stands in the handler's source: it may be a
    value of the event otherwise."""
    trace = _own_frame(error)
    key = error.args[0] if error.args else None
    if trace is None or not isinstance(key, str) or key not in trace.tb_frame.f_code.co_consts:
        return ""
    source = linecache.getline(trace.tb_frame.f_code.co_filename, trace.tb_lineno)
    for match in _READ.finditer(source):
        steps = [step[1:-1] for step in re.findall(r"\[([^\]]+)\]", match[1])]
        if key in steps:
            return ".".join(["data", *steps[: steps.index(key) + 1]])
    return key
