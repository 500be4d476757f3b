"""An AsyncAPI 3.0 document: the topic, its messages, and that an application may publish them."""

from __future__ import annotations

from typing import Any

from schemas.generate.catalogue import Catalogue, Event, pascal

DRAFT = "application/schema+json;version=draft-07"


def document(catalogue: Catalogue) -> dict[str, Any]:
    """The document; the messages' payloads are the JSON Schemas beside it."""
    channel = _camel(catalogue.topic.replace("-", "_"))
    names = {event.type: _camel(event.type) for event in catalogue.events}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Lifecycle events",
            "version": catalogue.version,
            "description": "What an application tells of its users, for whoever keeps an email programme in step. "
            "Made from catalogue.yaml by `python -m schemas.generate`.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
            "tags": [{"name": name, "description": about} for name, about in catalogue.themes.items()],
        },
        "defaultContentType": "application/json",
        "servers": {
            "local": {"host": "localhost:9092", "protocol": "kafka", "description": "A broker on this machine."}
        },
        "channels": {
            channel: {
                "address": catalogue.topic,
                "description": "One topic for all types: events of a user stay in order, because they share a key.",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names.values()},
                "bindings": {"kafka": {"topic": catalogue.topic, "bindingVersion": "0.5.0"}},
            }
        },
        "operations": {
            "publishLifecycleEvent": {
                "action": "send",
                "summary": "The application tells what happened to a user.",
                "channel": {"$ref": f"#/channels/{channel}"},
                "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names.values()],
            }
        },
        "components": {"messages": {names[event.type]: _message(event) for event in catalogue.events}},
    }


def _message(event: Event) -> dict[str, Any]:
    return {
        "name": event.type,
        "title": event.record,
        "summary": event.about,
        "contentType": "application/json",
        "tags": [{"name": event.theme}],
        "payload": {"schemaFormat": DRAFT, "schema": {"$ref": f"./{event.type}.schema.json"}},
        "bindings": {
            "kafka": {"key": {"type": "string", "description": "data.user_id"}, "bindingVersion": "0.5.0"},
        },
    }


def _camel(name: str) -> str:
    made = pascal(name)
    return made[0].lower() + made[1:]
