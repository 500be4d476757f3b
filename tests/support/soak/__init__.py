"""Half an hour of changing load on one bridge: are memory, file handles and threads flat, and is every promise kept?

`python -m tests.support.soak` (or `make soak`) says what it does and what it found; docs/soak.md has the figures.
Crashes and cut networks are not in it: tests/support/chaos has those.
"""
