"""schemas/catalogue.yaml, read once for all tests of a process: it takes a tenth of a second."""

from functools import cache

from schemas.generate import files
from schemas.generate.catalogue import Catalogue


@cache
def catalogue() -> Catalogue:
    """Not to be changed."""
    return files.current()
