"""Rules read again while the service runs: what is taken, what is refused, and what stays meanwhile."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge import rules
from bridge.rules import RuleBook
from bridge.runtime.reloading import Reloading, changes, signature
from tests.support.fakes import CountingMeter

SIGNUP = 'rules:\n- {name: signup, match: user.signed_up, do: [{upsert: {email: "${data.email}"}}]}\n'
LOGIN = '- {name: login, match: user.logged_in, do: [{upsert: {email: "${data.email}"}}]}\n'
BROKEN = SIGNUP + "- {name: broken, match: x, wehn: y, do: [{upsert: {email: e}}]}\n"


class StillClock:
    """Stands where it is put."""

    at = 1_780_000_000.0

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        return self.at


class Desk:
    """Rules in a folder, and what watches them. A look here is what the service makes every two seconds."""

    def __init__(self, folder: Path, pattern: str = "*.yaml", text: str = SIGNUP) -> None:
        self.folder = folder
        self.pattern = pattern
        self.write(text)
        self.taken: list[RuleBook] = []
        self.meter = CountingMeter()
        self.clock = StillClock()
        self.read: Callable[[], RuleBook] = lambda: rules.load([pattern], folder)
        book = self.read()
        self.reloading = Reloading(
            book,
            signature(self.files()),
            files=self.files,
            read=lambda: self.read(),
            swap=self.taken.append,
            fixed=[folder / "bridge.yml"],
            clock=self.clock,
            meter=self.meter,
        )

    def files(self) -> Sequence[Path]:
        return rules.rules_files([self.pattern], self.folder)

    def write(self, text: str, name: str = "rules.yaml") -> None:
        """As most editors do: a new file takes the name."""
        new = self.folder / f"{name}.new"
        new.write_text(text, encoding="utf-8")
        new.replace(self.folder / name)

    async def looks(self, count: int = 2) -> list[Any]:
        """What is logged meanwhile."""
        with capture_logs() as logs:
            for _ in range(count):
                await self.reloading.look()
        return logs

    def names(self) -> list[list[str]]:
        """The rules of each book that was put in force."""
        return [[rule.name for rule in book.rules] for book in self.taken]

    def reloads(self) -> dict[str, int]:
        return {name[1]: count for name, count in self.meter.counts.items() if name[0] == "reloaded"}


async def test_a_changed_file_is_in_force_once_it_keeps_still(tmp_path: Path) -> None:
    """A file that changes is read at the look after the one that found it changed, and each change once."""
    desk = Desk(tmp_path)
    before = desk.reloading.state
    assert await desk.looks() == [] and desk.taken == []
    desk.clock.at += 60
    desk.write(SIGNUP + LOGIN)
    assert await desk.looks(1) == [] and desk.taken == []
    (line,) = await desk.looks(3)
    assert desk.names() == [["signup", "login"]]
    assert (line["log_level"], line["added"], line["rules"]) == ("info", ["login"], 2)
    assert "removed" not in line and "changed" not in line
    state = desk.reloading.state
    assert (state.rules, state.problem, state.version) == (2, "", line["version"])
    assert state.version != before.version == line["former_version"]
    assert state.loaded_at_wall_seconds == before.loaded_at_wall_seconds + 60
    assert desk.reloads() == {"loaded": 1}


async def test_a_file_that_is_being_written_is_not_read(tmp_path: Path) -> None:
    """The first half of a rules file is a good rules file: what it lacks would be filtered away."""
    desk = Desk(tmp_path, text=SIGNUP + LOGIN)
    path = tmp_path / "rules.yaml"
    for text in (SIGNUP, SIGNUP + LOGIN[:20], SIGNUP + LOGIN + LOGIN.replace("login", "third")):
        path.write_text(text)
        await desk.looks(1)
        assert desk.taken == []
    await desk.looks(1)
    assert desk.names() == [["signup", "login", "third"]]


async def test_files_that_change_while_they_are_read_are_read_again(tmp_path: Path) -> None:
    """What was read may be half of the old files and half of the new."""
    desk = Desk(tmp_path)
    desk.write(SIGNUP + LOGIN)
    load = desk.read

    def overtaken() -> RuleBook:
        book = load()
        desk.write(SIGNUP.replace("signup", "newest"))
        desk.read = load
        return book

    desk.read = overtaken
    await desk.looks(2)
    assert desk.taken == []
    await desk.looks(2)
    assert desk.names() == [["newest"]]


async def test_broken_rules_change_nothing_and_are_told_once_with_their_places(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    version = desk.reloading.state.version
    desk.write(BROKEN)
    (line,) = await desk.looks(4)
    (problem,) = line["problems"]
    assert line["log_level"] == "error" and "rules.yaml:3:" in problem and "MB103" in problem and "when" in problem
    assert desk.taken == [] and desk.reloads() == {"refused": 1}
    state = desk.reloading.state
    assert (state.version, state.rules, state.problem) == (version, 1, problem)
    assert state.refused_at_wall_seconds == desk.clock.wall()
    desk.write(SIGNUP + LOGIN)
    await desk.looks()
    assert desk.names() == [["signup", "login"]] and desk.reloading.state.problem == ""


async def test_files_that_are_gone_or_unreadable_change_nothing(tmp_path: Path) -> None:
    """A volume that is away for a moment must not leave the service without rules."""
    desk = Desk(tmp_path)
    path, aside = tmp_path / "rules.yaml", tmp_path / "aside"
    path.rename(aside)
    (line,) = await desk.looks(3)
    assert "MB101" in line["problems"][0]
    aside.rename(path)
    await desk.looks(3)
    assert desk.reloading.state.problem == ""
    path.unlink()
    path.symlink_to(path)
    (line,) = await desk.looks(3)
    assert "rules.yaml" in line["problems"][0]
    assert all(names == ["signup"] for names in desk.names())


async def test_a_request_reads_at_once_even_what_has_not_changed(tmp_path: Path) -> None:
    """SIGHUP: whoever sends it says that the files are complete."""
    desk = Desk(tmp_path)
    desk.reloading.ask()
    (line,) = await desk.looks(1)
    assert desk.names() == [["signup"]] and "nothing in them has changed" in line["event"]
    desk.write(SIGNUP + LOGIN)
    desk.reloading.ask()
    await desk.looks(1)
    assert desk.names() == [["signup"], ["signup", "login"]]
    desk.write(BROKEN)
    for _ in range(2):
        desk.reloading.ask()
        (line,) = await desk.looks(1)
        assert line["log_level"] == "error"
    assert len(desk.taken) == 2


async def test_a_config_map_that_is_exchanged_is_seen(tmp_path: Path) -> None:
    """Kubernetes exchanges one symlink, `..data`; the names stay, and sizes and times may too."""
    for name, rule in (("one", "signup"), ("two", "change")):
        (tmp_path / name).mkdir()
        file = tmp_path / name / "rules.yaml"
        file.write_text(SIGNUP.replace("signup", rule))
        os.utime(file, (1, 1))
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "mounted").mkdir()
    (tmp_path / "mounted" / "rules.yaml").symlink_to("../..data/rules.yaml")

    class Mounted(Desk):
        def write(self, text: str, name: str = "rules.yaml") -> None:
            pass

    desk = Mounted(tmp_path / "mounted")
    (tmp_path / "..tmp").symlink_to("two")
    (tmp_path / "..tmp").replace(tmp_path / "..data")
    await desk.looks()
    assert desk.names() == [["change"]]


async def test_files_that_come_and_go_under_a_pattern_are_seen(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.write(SIGNUP.replace("signup", "second"), "a.yaml")
    await desk.looks()
    (tmp_path / "a.yaml").unlink()
    (line,) = await desk.looks()
    assert desk.names() == [["second", "signup"], ["signup"]]
    assert line["removed"] == ["second"]


async def test_what_only_a_start_reads_is_told(tmp_path: Path) -> None:
    """Somebody who changed settings and sends SIGHUP must not believe that they are in force."""
    (tmp_path / "bridge.yml").write_text("a")
    desk = Desk(tmp_path)
    desk.reloading.ask()
    assert [line["log_level"] for line in await desk.looks(1)] == ["info"]
    (tmp_path / "bridge.yml").write_text("another")
    desk.reloading.ask()
    warning, _ = await desk.looks(1)
    assert warning["files"] == ["bridge.yml"] and "restart" in warning["event"]


async def test_the_watch_outlives_a_mistake_of_its_own(tmp_path: Path) -> None:
    """Whatever breaks, the rules in force stay, and the next request is carried out."""
    desk = Desk(tmp_path)
    load = desk.read

    def broken() -> RuleBook:
        raise AssertionError("a bug")

    desk.read = broken
    watch = asyncio.create_task(desk.reloading.run())
    with capture_logs():
        desk.reloading.ask()
        while not desk.reloading.state.problem and not watch.done():
            await asyncio.sleep(0)
        assert not watch.done() and desk.taken == []
        desk.read = load
        desk.reloading.ask()
        while not desk.taken and not watch.done():
            await asyncio.sleep(0)
        assert not watch.done() and desk.taken
    watch.cancel()


# What has changed


def book(*texts: str) -> RuleBook:
    return rules.load_text("rules:\n" + "".join(texts))


ONE = '- {name: one, match: x, do: [{upsert: {email: "${data.email}"}}]}\n'
TWO = ONE.replace("one", "two")


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ([ONE, TWO], [ONE, TWO], ([], [], [], False)),
        ([ONE, TWO], [TWO, ONE], ([], [], [], True)),
        ([ONE], [TWO, ONE], (["two"], [], [], False)),
        ([ONE, TWO], [ONE.replace("x", "y")], ([], ["two"], ["one"], False)),
        ([ONE], ["\n# moved\n" + ONE], ([], [], [], False)),
        ([ONE], [ONE.replace("do:", "enabled: false, do:")], ([], [], ["one"], False)),
        ([ONE], [ONE.replace("do:", "tests: [{event: {type: x}, expect: []}], do:")], ([], [], [], False)),
    ],
)
def test_rules_are_compared_by_what_they_say(old: list[str], new: list[str], found: Any) -> None:
    """Not by where they stand; tests plan nothing."""
    before, after = book(*old), book(*new)
    assert changes(before, after) == found
    assert (before.version == after.version) == (found == ([], [], [], False))
