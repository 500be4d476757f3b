"""The whole engine on a virtual clock, against an imagined Kafka and an imagined Meisa, with faults from a seed.

    scenario.py   what a seed draws: sizes, limits, faults and their times
    events.py     the records that are produced, the rules, and what each record must lead to
    states.py     events that say again what Meisa may have, and what it must hold in the end
    world.py      the clock, the dice, the trace, and the switch that ends all faults
    broker.py     an imagined Kafka: logs, a group, commits, rebalances
    source.py     a member's way to it (ports.Source)
    letters.py    the dead-letter topic (ports.Letters)
    meisa.py      an imagined Meisa: applies calls at a moment of its own, refuses, throttles, cuts answers
    ledger.py     the five promises, checked at every step
    store.py      an imagined Redis (ports.Store); a machine's file is tests/support/disk.py
    member.py     one incarnation of the bridge, wired from the real parts
    run.py        one seed from its beginning to quiescence

Everything is drawn from the seed; nothing depends on the machine's clock, on memory addresses or on hashes.
"""
