"""Bad records, requests, answers and files, made by a seed: `python -m tests.support.fuzz --help`, docs/fuzzing.md.

Every case is made of its seed and number alone, so that one that fails can be made again by itself.
"""
