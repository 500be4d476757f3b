"""The file store: versions, strangers' files, damage, other processes, power."""

import sqlite3
import stat
from pathlib import Path

import pytest

from bridge.errors import StartFailed, StoreFailed
from bridge.state import mine, open_store
from bridge.state.sqlite import SqliteStore


def opened(path: Path, patience_seconds: float = 0.0) -> SqliteStore:
    return SqliteStore(path, merge=mine, patience_seconds=patience_seconds)


async def made(path: Path, **values: bytes) -> Path:
    store = opened(path)
    for name, value in values.items():
        store.put(name, value)
    await store.flush()
    await store.close()
    return path


def altered(path: Path, statement: str) -> None:
    db = sqlite3.connect(path)
    db.execute(statement)
    db.commit()
    db.close()


async def test_a_relative_file_stands_beside_the_configuration_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    store = open_store("sqlite:///state.db", base_dir=tmp_path, namespace="g")
    await store.close()
    assert stat.S_IMODE((tmp_path / "state.db").stat().st_mode) == 0o600


async def test_an_absolute_file_is_where_it_says(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/state.db", base_dir=Path("elsewhere"), namespace="g")
    await store.close()
    assert (tmp_path / "state.db").exists()


async def test_a_killed_process_loses_nothing_that_was_flushed(tmp_path: Path) -> None:
    """The write-ahead log stays behind, and whoever opens the file next reads it."""
    first = opened(tmp_path / "state.db")
    first.put("x:1", b"one")
    await first.flush()
    copy = tmp_path / "copy.db"
    for name in ("", "-wal"):
        Path(f"{copy}{name}").write_bytes((tmp_path / f"state.db{name}").read_bytes())
    second = opened(copy)
    assert second.get("x:1") == b"one"
    await first.close()
    await second.close()


async def test_a_newer_versions_file_is_refused(tmp_path: Path) -> None:
    path = await made(tmp_path / "state.db", x=b"1")
    altered(path, "PRAGMA user_version = 9")
    with pytest.raises(StartFailed, match=r"state\.db was written by a newer meisa-bridge \(format 9, this one knows"):
        opened(path)


async def test_another_programs_database_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    altered(path, "CREATE TABLE theirs (a)")
    before = path.read_bytes()
    with pytest.raises(StartFailed, match="a database of something else"):
        opened(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"no database at all, whatever its name says" * 99, b"SQLite format 3\0" + b"\xff" * 4096]
)
def test_a_damaged_file_is_refused_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.db").write_bytes(content)
    with pytest.raises(StartFailed) as raised:
        opened(tmp_path / "state.db")
    assert "damaged, or no SQLite database: put a backup in its place" in str(raised.value)
    assert "\n" not in str(raised.value)


async def test_damage_that_is_met_later_is_told_and_never_taken_for_an_empty_register(tmp_path: Path) -> None:
    path = await made(tmp_path / "state.db", **{f"x{number}": b"v" * 500 for number in range(500)})
    content = bytearray(path.read_bytes())
    content[5 * 4096 :] = b"\xff" * (len(content) - 5 * 4096)
    path.write_bytes(content)
    with pytest.raises((StoreFailed, StartFailed), match=r"malformed|damaged"):
        store = opened(path)
        for number in range(500):
            assert store.get(f"x{number}") == b"v" * 500


def test_a_folder_or_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="is a directory"):
        opened(tmp_path)
    with pytest.raises(StartFailed, match=r"the folder .*nowhere does not exist: make it"):
        opened(tmp_path / "nowhere" / "state.db")


async def test_a_file_that_another_process_holds_keeps_what_is_to_be_written(tmp_path: Path) -> None:
    """The flush fails, and the next one writes it."""
    path = await made(tmp_path / "state.db")
    store = opened(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store.put("x:1", b"one")
    with pytest.raises(StoreFailed, match="cannot be written: database is locked"):
        await store.flush()
    assert store.dirty and store.get("x:1") == b"one"
    other.execute("ROLLBACK")
    await store.flush()
    assert not store.dirty
    assert other.execute("SELECT value FROM register WHERE name = 'x:1'").fetchone() == (b"one",)
    other.close()
    await store.close()


async def test_a_flush_that_fails_half_way_writes_nothing(tmp_path: Path) -> None:
    path = await made(tmp_path / "state.db")
    altered(
        path, "CREATE TRIGGER no BEFORE INSERT ON register WHEN new.name = 'x:2' BEGIN SELECT RAISE(FAIL, 'no'); END"
    )
    store = opened(path)
    for name in ("x:1", "x:2", "x:3"):
        store.put(name, b"v")
    with pytest.raises(StoreFailed, match="no"):
        await store.flush()
    await store.close()
    store = opened(path)
    assert [entry async for entry in store.scan("")] == []
    await store.close()


async def test_copying_the_log_is_no_writing_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that copies uses a connection of its own; what is kept must not be dropped for it."""
    monkeypatch.setattr("bridge.state.sqlite.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("bridge.state.sqlite.LOOK_SECONDS", 0.0)
    path = tmp_path / "state.db"
    store = opened(path)
    for number in range(3):
        store.put("x:1", b"%d" % number)
        await store.flush()
        assert store._checkpoint is not None
        store._checkpoint.join()
        assert not store.refresh()
    # Copied: the file by itself, without its log, has it.
    copy = tmp_path / "copy.db"
    copy.write_bytes(path.read_bytes())
    alone = opened(copy)
    assert alone.get("x:1") == b"2"
    await alone.close()
    await store.close()


async def test_a_scrubbed_file_holds_nothing_of_what_was_deleted(tmp_path: Path) -> None:
    """Not in pages that are free now, nor in the write-ahead log; also where SQLite does not overwrite what it deletes,
    which depends on how it was built."""
    file = tmp_path / "state.db"
    store = opened(file, patience_seconds=1.0)
    store._db.execute("PRAGMA secure_delete = OFF")
    names = [f"x:ada-{number}" for number in range(500)]
    for name in [*names, "x:eve"]:
        store.put(name, name.encode() * 10)
    await store.flush()
    for name in names:
        store.delete(name)
    await store.flush()
    assert any(b"ada-" in path.read_bytes() for path in tmp_path.iterdir()), "else there would be nothing to scrub"
    assert store.scrub()
    left = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"x:eve" in left and b"ada-" not in left
    await store.close()
