"""`python -m bridge` is `meisa-bridge`."""

from bridge.cli import main

if __name__ == "__main__":
    main(prog_name="meisa-bridge")
