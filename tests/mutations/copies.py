"""Copies of the repository, in which tests run on the copy's own code, broken or not."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

from tests.mutations.table import ROOT, Mutation

LEFT_OUT = shutil.ignore_patterns(".*", "*.egg-info", "htmlcov", "build", "dist")

PRELOADED = (
    *("pytest", "pytest_asyncio.plugin", "pytest_cov.plugin", "hypothesis.stateful", "_hypothesis_pytestplugin"),
    *("confluent_kafka.admin", "aiohttp", "httpx", "pydantic", "orjson", "structlog.testing", "tenacity"),
    *("ruamel.yaml", "prometheus_client", "click", "rich.console", "starlette.applications", "uvicorn"),
)
"""Imported once for all runs: nothing of ours. It is most of what a run of a few tests costs."""

ELSEWHERE = 99
"""Exit status: what was tested was not the copy."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(list(PRELOADED))
_moments = itertools.count(int(time.time()) + 10)


class Copy:
    """One copy; one thing is done in it at a time."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "copy"
        self._report = folder / "report.xml"
        shutil.copytree(ROOT, self.root, ignore=LEFT_OUT)

    @contextmanager
    def broken(self, mutation: Mutation) -> Iterator[None]:
        path = self.root / mutation.file
        before = path.read_bytes()
        mutation.apply(self.root)
        _touch(path)
        try:
            yield
        finally:
            path.write_bytes(before)
            _touch(path)

    def outcomes(self, tests: Sequence[str], seconds_max: float) -> dict[str, str]:
        """What became of each test: `failed`, `passed`, `skipped`, `error` (before it began), `hung`, `not found`."""
        self._report.unlink(missing_ok=True)
        process = _context.Process(target=run, args=(str(self.root), list(tests), str(self._report)))
        process.start()
        process.join(seconds_max)
        if process.is_alive():
            assert process.pid is not None
            os.killpg(process.pid, signal.SIGKILL)  # its brokers too
            process.join()
            return dict.fromkeys(tests, "hung")
        if process.exitcode == ELSEWHERE:
            raise SystemExit(f"the tests did not run on the copy at {self.root}: nothing would be proved")
        found = list(self._read_report())
        return {test: _worst(what for name, what in found if _is_of(name, test)) for test in tests}

    def _read_report(self) -> Iterator[tuple[str, str]]:
        if not self._report.exists():
            return
        for case in ElementTree.parse(self._report).iter("testcase"):
            what = "passed"
            for name, means in (("skipped", "skipped"), ("error", "error"), ("failure", "failed")):
                if case.find(name) is not None:
                    what = means
            yield f"{case.get('file')}::{case.get('name')}", what


def _touch(path: Path) -> None:
    """Byte code is known by its source's second and size: two versions within a second would be one."""
    moment = next(_moments)
    os.utime(path, (moment, moment))


def run(root: str, tests: list[str], report: str) -> None:
    """In a process of its own, forked with everything but our own code imported."""
    os.setsid()
    os.chdir(root)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("bridge", "tests")]:
        del sys.modules[name]
    sys.path[:] = [root, *(path for path in sys.path if Path(path).resolve() != ROOT)]
    os.environ["PYTHONPATH"] = root
    import hypothesis
    import pytest

    # The same examples each time, and the first one that fails will do: making it small takes a minute.
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile("mutations", derandomize=True, database=None, phases=phases)
    hypothesis.settings.load_profile("mutations")
    options = ("-q", "-p", "no:cacheprovider", "-o", "junit_family=xunit1", f"--junitxml={report}")
    status = int(pytest.main([*options, *tests]))
    import bridge

    ours = bridge.__file__ is not None and Path(bridge.__file__).is_relative_to(root)
    os._exit(status if ours else ELSEWHERE)


def _is_of(name: str, test: str) -> bool:
    return name == test or name.startswith(f"{test}[")


def _worst(outcomes: Iterable[str]) -> str:
    """One outcome for all parameters of a test."""
    found = set(outcomes)
    return next((what for what in ("failed", "error", "passed", "skipped") if what in found), "not found")
