"""`meisa-bridge identities import`: what a file of people becomes, and what is wrong with it."""

import json
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bridge.cli import main

CONFIG = """\
kafka: {bootstrap_servers: "localhost:9092"}
topics: {user-events: {}}
meisa: {api_key: {env: KEY}}
rules: [rules/*.yaml]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "bridge.yaml").write_text(CONFIG + "state: {url: 'sqlite:///state.db'}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def import_(content: str | bytes, *options: str) -> Result:
    Path("people.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    arguments = ["identities", "import", "people.csv", "-c", "bridge.yaml", *options]
    result = CliRunner().invoke(main, arguments, env={"KEY": "meisa_live_1"})
    assert "Traceback" not in result.output
    return result


def kept() -> dict[str, list[object]]:
    if not Path("state.db").exists():
        return {}
    db = sqlite3.connect("state.db")
    rows = {name: json.loads(value) for name, value in db.execute("SELECT name, value FROM register")}
    db.close()
    return rows


def test_people_are_known_by_id_and_aliases(folder: Path) -> None:
    """Beside the configuration; a byte order mark, quotes, blanks, blank lines and empty cells are no matter."""
    result = import_(
        "\ufeffemail, external_id ,stripe,old crm\r\na@x.io,7,cus_1,\r\n\r\nb@x.io,8,,\r\n"
        'c@x.io,,cus_3,"an id, with a comma"\r\n'
    )
    assert (result.exit_code, result.stdout, result.stderr) == (0, "imported 3 of 3 rows\n", "")
    assert kept() == {
        "e:a@x.io": ["7", None, []],
        "x:7": ["a@x.io", False, False, []],
        "a:stripe:cus_1": ["a@x.io", "7", []],
        "e:b@x.io": ["8", None, []],
        "x:8": ["b@x.io", False, False, []],
        "a:stripe:cus_3": ["c@x.io", None, []],
        "a:old crm:an id, with a comma": ["c@x.io", None, []],
    }


def test_a_second_import_says_what_was_known_and_replaces_what_is_new(folder: Path) -> None:
    import_("email,external_id\na@x.io,7\nb@x.io,8\n")
    result = import_("email,external_id\na@x.io,7\nnew@x.io,8\n", "--json")
    assert json.loads(result.stdout) == {"rows": 2, "imported": 1, "known_already": 1}
    assert kept()["x:8"][0] == "new@x.io"


def test_what_events_have_taught_stays(folder: Path) -> None:
    import_("email,external_id\na@x.io,7\n")
    db = sqlite3.connect("state.db")
    db.execute("UPDATE register SET value = ? WHERE name = 'x:7'", (b'["taught@x.io",false,true,[["t",0,5]]]',))
    db.commit()
    db.close()
    import_("email,external_id\nb@x.io,7\n")
    assert kept()["x:7"][0] == "taught@x.io"


BAD_ROWS = {
    "a@x.io,7": "2 cells, but the first line names 3 columns",
    "a@x.io,7,c,d": "4 cells, but the first line names 3 columns",
    ",7,c": "no email",
    "a.x.io,7,c": "the email is not an address",
    "a@x.io, ,": "neither external_id nor alias: nothing could be found by it",
    "G@x.io,9,": "the email stands in line 2 already",
    "a@x.io,1,": "the external_id stands in line 2 already",
    "a@x.io,9,cus_g": "the stripe stands in line 2 already",
}


@pytest.mark.parametrize("row", BAD_ROWS)
def test_with_one_bad_row_nothing_is_imported(folder: Path, row: str) -> None:
    """The line is named, the address in it is not shown."""
    result = import_(f"email,external_id,stripe\ng@x.io,1,cus_g\n{row}\nz@x.io,2,\n")
    assert result.exit_code == 1
    assert result.stderr == f"meisa-bridge: nothing was imported: 1 bad row\npeople.csv:3: {BAD_ROWS[row]}\n"
    assert kept() == {}


def test_line_numbers_count_lines_not_rows_and_many_are_cut_short(folder: Path) -> None:
    result = import_('email,external_id,crm\n\na@x.io,7,"two\nlines"\nbad,1,\n' + "bad,,\n" * 30)
    lines = result.stderr.splitlines()
    assert lines[0] == "meisa-bridge: nothing was imported: 31 bad rows"
    assert lines[1] == "people.csv:5: the email is not an address"
    assert lines[-1] == "and 11 more" and len(lines) == 22


@pytest.mark.parametrize(
    ("content", "says", "status"),
    [
        ("", ":1: no column `email`; the first line names the columns", 1),
        ("mail,external_id\n", ":1: no column `email`", 1),
        ("email\na@x.io\n", ":1: nothing beside `email`", 1),
        ("email,\n", ":1: a column has no name", 1),
        ("email,crm,crm\n", ":1: two columns are named `crm`", 1),
        ('email,external_id\n"a@x.io,7\n', ":2: not CSV: unexpected end of data", 1),
        (b"email,external_id\n\xff@x,7\n", ":2: not UTF-8 text", 2),
    ],
)
def test_a_file_that_is_none_is_told(folder: Path, content: str | bytes, says: str, status: int) -> None:
    result = import_(content)
    assert result.exit_code == status and f"people.csv{says}" in result.stderr and result.stdout == ""


def test_rules_that_need_the_table_are_right_where_it_lasts(folder: Path) -> None:
    """And refused in memory, with what to do."""
    (folder / "rules").mkdir()
    (folder / "rules" / "a.yaml").write_text(
        "rules:\n  - name: paid\n    match: paid\n    do:\n"
        "      - enroll: {sequence_slug: s}\n        contact: {stripe: '${data.customer}'}\n"
    )
    check = ["check", "--offline", "-c", "bridge.yaml"]
    assert CliRunner().invoke(main, check, env={"KEY": "meisa_live_1"}).exit_code == 0
    (folder / "bridge.yaml").write_text(CONFIG)
    refused = CliRunner().invoke(main, check, env={"KEY": "meisa_live_1"})
    assert refused.exit_code == 1 and "MB150" in refused.stdout and "sqlite:///" in refused.stdout


def test_a_header_alone_imports_nobody(folder: Path) -> None:
    assert import_("email,external_id\n").stdout == "imported 0 of 0 rows\n"


def test_a_missing_file_is_told(folder: Path) -> None:
    result = CliRunner().invoke(main, ["identities", "import", "no.csv", "-c", "bridge.yaml"], env={"KEY": "k"})
    assert result.exit_code == 2
    assert result.stderr == "meisa-bridge: no.csv: cannot be read (No such file or directory)\n"


def test_in_memory_there_is_nothing_to_seed(folder: Path) -> None:
    (folder / "bridge.yaml").write_text(CONFIG)
    result = import_("email,external_id\na@x.io,7\n")
    assert result.exit_code == 1
    assert result.stderr.startswith("meisa-bridge: state.url is memory, which forgets everything")
    assert "set it to sqlite:///state.db" in result.stderr


def test_a_store_that_is_damaged_is_one_line(folder: Path) -> None:
    (folder / "state.db").write_bytes(b"not a database" * 500)
    result = import_("email,external_id\na@x.io,7\n")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1 and "state.db is damaged, or no SQLite database" in result.stderr


def test_a_redis_that_is_away_is_one_line(folder: Path) -> None:
    (folder / "bridge.yaml").write_text(CONFIG + "state: {url: 'redis://127.0.0.1:1'}\n")
    result = import_("email,external_id\na@x.io,7\n")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "the state in Redis at 127.0.0.1:1 cannot be read" in result.stderr
    assert "nothing was imported" in result.stderr


def test_keys_that_the_command_does_not_use_may_be_missing(folder: Path) -> None:
    """Who seeds names, or looks after dead letters, needs neither a key that can send email nor the pages' token."""
    with Path("bridge.yaml").open("a") as config:
        config.write("admin: {token: {env: TOKEN}}\n")
    Path("people.csv").write_text("email,external_id\na@x.io,7\n")
    environ = {"KEY": None, "TOKEN": None}
    result = CliRunner().invoke(main, ["identities", "import", "people.csv", "-c", "bridge.yaml"], env=environ)
    assert (result.exit_code, result.output) == (0, "imported 1 of 1 rows\n")
    told = CliRunner().invoke(main, ["check", "--offline", "-c", "bridge.yaml"], env=environ)
    assert told.exit_code == 2 and told.output.count("MB013") == 2, "who runs the bridge needs both"


def test_a_missing_secret_that_the_command_may_need_is_told(folder: Path) -> None:
    """Kafka's password is no key of Meisa's."""
    Path("bridge.yaml").write_text(
        CONFIG.replace('9092"', '9092", properties: {sasl.password: {env: NONE}}') + "state: {url: 'sqlite:///s.db'}\n"
    )
    result = import_("email\na@x.io\n")
    assert result.exit_code == 2 and "`kafka.properties.sasl.password`" in result.stderr
