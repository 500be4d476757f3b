"""The stable codes of everything that can be wrong with a configuration. A code never changes its meaning."""

from __future__ import annotations

from typing import Final

from bridge.yamldoc import Dialect

SYNTAX = "MB001"
DUPLICATE_KEY = "MB002"
UNSUPPORTED_YAML = "MB003"
UNKNOWN_KEY = "MB004"
MISSING_KEY = "MB005"
WRONG_TYPE = "MB006"
NOT_A_DURATION = "MB007"
OUT_OF_RANGE = "MB008"
NOT_A_CHOICE = "MB009"
UNKNOWN_OVERRIDE = "MB010"
BAD_OVERRIDE = "MB011"
LITERAL_SECRET = "MB012"  # noqa: S105  (a code, not a secret)
UNREADABLE_REFERENCE = "MB013"
BAD_REFERENCE = "MB014"
NO_TOPIC = "MB020"
NO_RULES = "MB021"
BAD_URL = "MB022"
PLAIN_HTTP = "MB023"
WRONG_ENVIRONMENT = "MB024"
BAD_ADDRESS = "MB025"
OPEN_ADMIN = "MB026"
CONSUMED_DEAD_LETTERS = "MB027"
RESERVED_PROPERTY = "MB028"
BAD_TOPIC_NAME = "MB029"
BAD_START = "MB030"
# MB031 was of settings that a version did not carry out yet.
CONTRADICTION = "MB032"
BAD_MODULE_NAME = "MB033"
NO_SCHEMA = "MB040"
UNREADABLE_SCHEMA = "MB041"
NOT_A_SCHEMA = "MB042"
OTHER_SCHEMA = "MB043"
UNUSED_BY_FORMAT = "MB044"
NO_TRACING = "MB050"
UNREADABLE_KAFKA_FILE = "MB055"
BAD_KAFKA_FILE = "MB056"
KAFKA_CERTIFICATE_DATE = "MB057"
KAFKA_SECURITY = "MB058"
KAFKA_UNPROTECTED = "MB059"

UNREADABLE: Final = frozenset({UNREADABLE_REFERENCE, UNREADABLE_KAFKA_FILE})
"""They end a command with status 2."""

CODES: dict[str, str] = {
    SYNTAX: "the file is not YAML",
    DUPLICATE_KEY: "a key is written twice in one map",
    UNSUPPORTED_YAML: "YAML that a configuration does not need: tags, keys that are no text, depth, endless aliases",
    UNKNOWN_KEY: "a key that does not exist",
    MISSING_KEY: "a setting without a default is missing",
    WRONG_TYPE: "a value of the wrong type",
    NOT_A_DURATION: "a value that is not a duration such as 30s, 10m, 2h or 1d",
    OUT_OF_RANGE: "a value outside its range",
    NOT_A_CHOICE: "a value that is not among the possible ones",
    UNKNOWN_OVERRIDE: "an environment variable `MEISA_BRIDGE__…` that names no setting",
    BAD_OVERRIDE: "an environment variable `MEISA_BRIDGE__…` whose value or name is not clear",
    LITERAL_SECRET: "a secret written into the file",
    UNREADABLE_REFERENCE: "`{env: NAME}` or `{file: PATH}` that cannot be read (exit status 2)",
    BAD_REFERENCE: "`{env: NAME}` or `{file: PATH}` that is written wrongly",
    NO_TOPIC: "no topic to read from",
    NO_RULES: "neither rules nor handlers",
    BAD_URL: "a value that is not a URL of the right kind",
    PLAIN_HTTP: "an API key would leave this machine unencrypted",
    WRONG_ENVIRONMENT: "an API key of the other environment",
    BAD_ADDRESS: "a listening address that is not host:port, or a host with more than its name",
    OPEN_ADMIN: "the dashboard would be open to the network without a token",
    CONSUMED_DEAD_LETTERS: "the dead-letter topic is also read from",
    RESERVED_PROPERTY: "a Kafka property that the bridge sets itself",
    BAD_TOPIC_NAME: "a name that Kafka does not allow for a topic",
    BAD_START: "a start that is neither earliest, latest nor an ISO 8601 time",
    CONTRADICTION: "two settings that contradict each other",
    BAD_MODULE_NAME: "a handler that is not the name of a Python module",
    NO_SCHEMA: "a topic of Avro records without a schema or a registry",
    UNREADABLE_SCHEMA: "a schema file that cannot be read",
    NOT_A_SCHEMA: "a file that is not the schema that its name promises",
    OTHER_SCHEMA: "a schema of a kind that does not describe records of the topic's format",
    UNUSED_BY_FORMAT: "a setting that the topic's format has no use for",
    NO_TRACING: "traces are wanted, and the packages for them are not installed",
    UNREADABLE_KAFKA_FILE: "a file that `kafka.properties` names cannot be read (exit status 2)",
    BAD_KAFKA_FILE: "a certificate or key of `kafka.properties` that is none, or that does not fit",
    KAFKA_CERTIFICATE_DATE: "a certificate of `kafka.properties` has expired; a warning where it soon will",
    KAFKA_SECURITY: "properties for TLS and SASL that do not go together, or are of Kafka's Java clients",
    KAFKA_UNPROTECTED: "a connection to Kafka that is less protected than it looks (a warning)",
}

YAML: Final = Dialect(
    SYNTAX,
    DUPLICATE_KEY,
    tag=UNSUPPORTED_YAML,
    structure=UNSUPPORTED_YAML,
    too_large=UNSUPPORTED_YAML,
    values_max=50_000,  # a real configuration has hundreds
    content="configuration",
)
