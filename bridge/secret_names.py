"""Which librdkafka properties hold a secret themselves (`ssl.key.location` is only a path)."""

from __future__ import annotations

import re
from typing import Final

SECRET_PROPERTY: Final = re.compile(r"password|passphrase|secret|jaas|key\.pem$|^sasl\.oauthbearer\.config$")
"""`sasl.jaas.config` is Java's: librdkafka refuses it, but not before a password stood in a file."""
