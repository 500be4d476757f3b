"""The bridge, broken on purpose: for each hard case (docs/hard-cases.md) its code is taken out and its tests must fail.

`mutations.toml` says what is broken and which tests must notice; `python -m tests.mutations` breaks a copy, runs those
tests in it and names what survives. That each text is still where the table says it is, an everyday test checks.
"""
