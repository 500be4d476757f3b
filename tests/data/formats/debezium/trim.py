"""Keeps of Make.java's lines what differs, with values as readable text: python trim.py in.jsonl > out.jsonl."""

import base64
import json
import sys
from pathlib import Path

seen = set()
for line in Path(sys.argv[1]).read_text().splitlines():
    record = json.loads(line)
    for part in ("key", "value"):
        record[part] = None if record[part] is None else base64.b64decode(record[part]).decode()
    value = json.loads(record["value"] or "{}")
    value = value.get("payload", value)
    kind = (record["topic"], value.get("status"))
    if "op" not in value and record["value"] is not None and kind in seen:
        continue  # one heartbeat, one BEGIN and one END are enough
    seen.add(kind)
    print(json.dumps(record))
