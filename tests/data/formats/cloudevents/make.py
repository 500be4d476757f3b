"""Makes events.jsonl with the official SDK: `pip install cloudevents==2.2.0` into a throw-away environment, then
`python make.py > events.jsonl`. Binary and structured, by the SDK's present and its older interface (v1)."""

import base64
import json
from datetime import UTC, datetime

from cloudevents.core.bindings.kafka import to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from cloudevents.v1.http import CloudEvent as OldEvent
from cloudevents.v1.kafka import to_binary as old_to_binary
from cloudevents.v1.kafka import to_structured as old_to_structured

ATTRIBUTES = {
    "id": "evt-1",
    "source": "https://app.example.com/users",
    "type": "user.signed_up",
    "subject": "u_7",
    "time": datetime(2026, 11, 22, 8, 54, 17, 123000, tzinfo=UTC),
    "dataschema": "https://example.com/schemas/user.signed_up.json",
    "tenant": "acme-ü",
    "partitionkey": "u_7",
}
DATA = [
    ("object", "application/json", {"email": "ada@example.com", "user_id": "7", "plan": "free", "name": "Åda"}),
    ("list", "application/json", [1, 2.5, None, "x"]),
    ("text", "text/plain", "grüße"),
    ("xml", "application/xml", "<user><email>ada@example.com</email></user>"),
    ("bytes", "application/octet-stream", b"\x00\x01\xfe\xff"),
    ("no-data", None, None),
    ("no-content-type", None, {"email": "ada@example.com"}),
]


def show(name: str, message: object) -> None:
    headers = message.headers.items() if isinstance(message.headers, dict) else message.headers
    key = message.key.decode() if isinstance(message.key, bytes) else message.key
    value = message.value if isinstance(message.value, bytes) else json.dumps(message.value).encode()
    print(
        json.dumps(
            {
                "name": name,
                "key": key,
                "headers": [[header, text.decode()] for header, text in headers],
                "value_base64": base64.b64encode(value).decode(),
            }
        )
    )


for name, content_type, data in DATA:
    attributes = ATTRIBUTES | ({"datacontenttype": content_type} if content_type else {})
    for write in (to_binary, to_structured):
        show(f"{name}-{write.__name__.removeprefix('to_')}", write(CloudEvent(dict(attributes), data), JSONFormat()))
minimal = CloudEvent({"id": "m", "source": "/", "type": "ping"}, None)
show("minimal-binary", to_binary(minimal, JSONFormat()))
show("minimal-structured", to_structured(minimal, JSONFormat()))
old = {**ATTRIBUTES, "time": "2026-11-22T08:54:17.123+00:00", "datacontenttype": "application/json"}
show("old-binary", old_to_binary(OldEvent(old, DATA[0][2])))
show("old-structured", old_to_structured(OldEvent(old, DATA[0][2])))
