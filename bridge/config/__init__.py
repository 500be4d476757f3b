"""YAML and environment become frozen settings; every mistake is told with its place.

`load` is for running, `examine` for `check`: it gives warnings too. Codes are in `codes.CODES`.
"""

from bridge.config.codes import CODES
from bridge.config.loader import Examined, SecretMissing, examine, load, placed
from bridge.config.schema import json_schema
from bridge.config.secret import Secret
from bridge.config.settings import Settings, Topic

__all__ = [
    "CODES",
    "Examined",
    "Secret",
    "SecretMissing",
    "Settings",
    "Topic",
    "examine",
    "json_schema",
    "load",
    "placed",
]
