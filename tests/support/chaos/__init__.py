"""Chaos on a real Kafka: bridges as users run them, one kind of fault per run, and a ledger that tells what came of it.

proxy    between bridge and broker: cuts, stalls and refuses connections
cluster  a real broker whose bridges reach it through that proxy only
fleet    the sandbox, the topics, and bridges in processes of their own
kinds    what goes wrong, again and again, until the work is done
judge    compares what was produced with what arrived
run      one run of one kind, and the table of all
"""
