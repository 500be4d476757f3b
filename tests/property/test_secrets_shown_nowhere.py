"""No mistake in a configuration makes a secret show: not in a problem's text, and not in the settings' own.

Secrets are made up, whatever characters they hold; the configuration that names them is broken in a random place.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.config import examine
from bridge.errors import UserError
from tests.support.amount import examples

MARK = "5up3rS3cr3t"
"""Stands in each secret; nothing else in the texts is like it."""

PIECES = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters="\x7f"), max_size=6)
SECRETS = st.builds("{}{}{}".format, PIECES, st.just(MARK), PIECES)
KEYS = st.builds(
    "{}{}{}".format, st.sampled_from(["meisa_live_", "meisa_test_", "meisa_", "sk_", ""]), st.just(MARK), PIECES
)
NAMES = ("KEY", "TRIGGER_KEY", "KAFKA_PASSWORD", "REGISTRY_AUTH", "REGISTRY_TOKEN", "ADMIN_TOKEN", "STATE", "SHARED")


def configuration() -> dict[str, Any]:
    return {
        "kafka": {
            "bootstrap_servers": "localhost:9092",
            "group_id": "g",
            "properties": {
                "security.protocol": "SASL_SSL",
                "sasl.mechanism": "PLAIN",
                "sasl.username": "bridge",
                "sasl.password": {"env": "KAFKA_PASSWORD"},
            },
        },
        "topics": {
            "a": {"format": "json", "dedupe": "10m"},
            "b": {"format": "avro", "registry": {"url": "https://r:8081", "basic_auth": {"env": "REGISTRY_AUTH"}}},
            "c": {"format": "avro", "registry": {"url": "https://r:8081", "bearer": {"env": "REGISTRY_TOKEN"}}},
        },
        "meisa": {
            "environment": "live",
            "api_key": {"env": "KEY"},
            "keys": {"trigger": {"env": "TRIGGER_KEY"}},
            "quota": {"shared": {"env": "SHARED"}},
        },
        "rules": ["rules/*.yaml"],
        "state": {"url": {"env": "STATE"}},
        "admin": {"listen": "127.0.0.1:8080", "token": {"env": "ADMIN_TOKEN"}},
    }


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in the configuration, by the keys that lead to it."""
    if not isinstance(value, dict):
        return [path]
    return [path, *(place for key, below in value.items() for place in places(below, (*path, key)))]


PLACES = [place for place in places(configuration()) if place]
REFERENCES = [{"env": name} for name in NAMES] + [{"file": "secret"}, {"file": "absent"}, {"env": "ABSENT"}]
BROKEN = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.text(max_size=5), st.just([]), st.just({}), st.just({"x": 1}),
    st.sampled_from(REFERENCES), st.sampled_from(REFERENCES).map(lambda one: [one]),
)  # fmt: skip


def traces(secret: str) -> set[str]:
    """The mark as it may show: plain, or where a header or a URL was made of the whole secret."""
    whole = base64.b64encode(secret.encode()).decode().rstrip("=")
    return {MARK, whole, quote(secret, safe="")}


@given(st.data())
@settings(max_examples=examples(400), deadline=None)
def test_whatever_is_wrong_with_a_configuration_no_secret_shows(data: st.DataObject) -> None:
    """Any leaf or section replaced, references where they do not belong, secrets that are themselves not what they
    should be (of the wrong environment, no user:password, no URL), and overrides by the environment."""
    secrets = {name: data.draw(KEYS if "KEY" in name else SECRETS, label=name) for name in NAMES}
    if data.draw(st.booleans()):
        secrets["STATE"] = f"redis://user:{quote(secrets['STATE'], safe='')}@localhost:6379/0"
    if data.draw(st.booleans()):
        secrets["SHARED"] = f"redis://:{quote(secrets['SHARED'], safe='')}@localhost:6379/0"
    config = configuration()
    for _ in range(data.draw(st.integers(0, 2))):
        *above, last = data.draw(st.sampled_from(PLACES))
        section: Any = config
        for key in above:
            section = section.get(key) if isinstance(section, dict) else None
        if isinstance(section, dict):
            section[data.draw(st.sampled_from([last, f"{last}x"]))] = data.draw(BROKEN)
    environ = dict(secrets)
    if data.draw(st.booleans()):
        place = "__".join(str(key).upper() for key in data.draw(st.sampled_from(PLACES)))
        environ[f"MEISA_BRIDGE__{place}"] = data.draw(st.sampled_from(sorted(secrets.values())))
    shown = []
    with TemporaryDirectory() as folder:
        file = Path(folder) / "bridge.yaml"
        file.write_text(json.dumps(config), encoding="utf-8")
        (Path(folder) / "secret").write_text(secrets["KEY"], encoding="utf-8")
        try:
            examined = examine(file, environ)
            shown += [str(problem) for problem in examined.problems] + [repr(problem) for problem in examined.problems]
            if examined.settings is not None:
                shown += [str(examined.settings), repr(examined.settings), f"{examined.settings.meisa!r}"]
                shown.append(repr(examined.settings.model_dump()))
            examined.settings_or_raise()
        except UserError as error:
            shown += [str(error), repr(error)]
    text = "\n".join(shown)
    for secret in secrets.values():
        for trace in traces(secret):
            assert trace not in text
