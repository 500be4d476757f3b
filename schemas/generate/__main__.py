"""`python -m schemas.generate`: writes all that is made from the catalogue; `--release` records its version."""

from __future__ import annotations

import argparse
import sys

from schemas.generate import files
from schemas.generate.catalogue import CatalogueError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m schemas.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; name what is not current, and end with 1")
    parser.add_argument("--release", action="store_true", help="record the version for ever, in schemas/released/")
    options = parser.parse_args()
    try:
        catalogue = files.current()
        wrong = files.problems(catalogue)
        if options.check:
            wrong += [f"{name} is not current: python -m schemas.generate" for name in files.stale(catalogue)]
        elif not wrong:
            files.write(catalogue)
            if options.release:
                sys.stdout.write(f"released {files.release(catalogue).name}\n")
    except (CatalogueError, ValueError) as error:
        wrong = [str(error)]
    sys.stderr.write("".join(f"{each}\n" for each in wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
