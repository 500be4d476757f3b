"""The admin server: health, metrics, status. Reads snapshots, decides nothing."""

from bridge.web.server import AdminServer

__all__ = ["AdminServer"]
