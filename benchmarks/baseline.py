"""The baseline: what one writes by hand in an afternoon. Consume one event, post it, commit, next.

    python benchmarks/baseline.py --bootstrap localhost:9092 --topic user-events --url http://127.0.0.1:8901/api/v1 \
        --count 1000

It keeps order (one call at a time) and loses nothing (commit after the answer), so its speed is 1 ÷ latency. It has no
retries, no quota, no dead letters: an event that cannot be sent is printed and skipped. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time

import httpx
from confluent_kafka import Consumer


def main() -> None:
    parser = argparse.ArgumentParser(description="Consume, post, commit: the hand-written baseline.")
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--group", default=f"baseline-{os.getpid()}")
    parser.add_argument("--url", required=True, help="the API's base, e.g. http://127.0.0.1:8901/api/v1")
    parser.add_argument("--count", type=int, required=True, help="stop after this many events")
    parser.add_argument("--wait", type=float, default=60.0, help="seconds without any event after which it gives up")
    options = parser.parse_args()
    key = os.environ.get("MEISA_API_KEY", "meisa_test_benchmark")
    consumer = Consumer(
        {
            "bootstrap.servers": options.bootstrap,
            "group.id": options.group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([options.topic])
    started, first, events, failed = time.perf_counter(), None, 0, 0
    with httpx.Client(base_url=options.url, headers={"X-API-Key": key}, timeout=10.0) as client:
        while events < options.count:
            message = consumer.poll(options.wait)
            if message is None:
                sys.exit(f"no event for {options.wait:g} s; {events} of {options.count} done")
            if message.error():
                print(message.error(), file=sys.stderr)
                continue
            first = first or time.perf_counter()
            try:
                data = json.loads(message.value() or b"")["data"]
                body = {"email": data["email"], "external_id": data["user_id"], "custom_fields": {"seq": data["seq"]}}
                client.post("/contacts/upsert/", json=body).raise_for_status()
            except (ValueError, KeyError, TypeError, httpx.HTTPError) as error:
                failed += 1
                print(f"skipped {message.topic()}/{message.partition()}/{message.offset()}: {error!r}", file=sys.stderr)
            consumer.commit(message=message, asynchronous=False)
            events += 1
    ended = time.perf_counter()
    consumer.close()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    seconds = ended - (first or started)
    facts = {"events": events, "failed": failed, "seconds": seconds, "events_per_second": events / seconds}
    facts |= {"cpu_seconds": usage.ru_utime + usage.ru_stime, "memory_max_bytes": usage.ru_maxrss * 1024}
    print(json.dumps(facts | {"start_to_first_event_seconds": (first or ended) - started}))


if __name__ == "__main__":
    main()
