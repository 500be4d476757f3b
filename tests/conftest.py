"""What all tests share."""

import gc
import logging
from collections.abc import Generator, Iterator

import pytest
import structlog

from tests.support.amount import THOROUGH, use_profile
from tests.support.kafka import any_kafka, embedded_kafka, real_kafka
from tests.support.secured import secured_kafka

__all__ = ["any_kafka", "embedded_kafka", "real_kafka", "secured_kafka"]

use_profile()

gc.disable()  # until all tests are collected: what is imported meanwhile stays, and looking at it again costs seconds


@pytest.hookimpl(tryfirst=True)  # before the workers' own, which reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of several workers two have a real Kafka, not all: it takes a second of their time to start, and 0.5 GB.

    The everyday run leaves slow tests out.
    """
    for item in items:
        if item.get_closest_marker("kafka") is not None:
            item.add_marker(pytest.mark.xdist_group(f"kafka-{item.path.parent.name}"))
    if _everyday(config):
        slow = [item for item in items if item.get_closest_marker("slow") is not None]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item.get_closest_marker("slow") is None]


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    """Logging is global: a command that is run in this process sets it up, and other tests must find it as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def _everyday(config: pytest.Config) -> bool:
    """Whether all tests are run, with nothing named and nothing asked for: who names a file wants what is in it."""
    whole = [str(each).rstrip("/") for each in config.args] == config.getini("testpaths")
    return whole and not THOROUGH and not config.getoption("markexpr") and not config.getoption("keyword")


def pytest_collection_finish() -> None:
    """What was imported is never garbage: collections need not look at it each time."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test has logged or printed goes to the run's first process as UTF-8; half of a surrogate pair in it would
    end the whole run."""
    report = yield
    report.sections = [(title, text.encode("utf-8", "backslashreplace").decode()) for title, text in report.sections]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if _everyday(config):
        terminalreporter.write_line("left out: tests marked slow. All of them, as in CI: make test THOROUGH=1")
