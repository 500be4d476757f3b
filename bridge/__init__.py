"""Meisa bridge: domain events from Kafka become Meisa calls.

What Python handlers use is here: `from bridge import Event, Upsert, handles`.
"""

from bridge.actions import AddTag, Enroll, RemoveTag, Track, Trigger, Upsert
from bridge.model import Event
from bridge.rules.handlers import handles

__all__ = ["AddTag", "Enroll", "Event", "RemoveTag", "Track", "Trigger", "Upsert", "__version__", "handles"]

__version__ = "0.1.0"
