"""A state store in memory that outlives its process, as far as it was flushed."""

from bridge.errors import StoreFailed
from bridge.state.memory import MemoryStore


class Disk(MemoryStore):
    """`disk` is what lasts; every process has a Disk of its own over it."""

    lasting = True

    def __init__(self, disk: dict[str, bytes]) -> None:
        super().__init__()
        self._values.update(disk)
        self._disk = disk
        self.broken = False
        """It cannot be written."""
        self._put: dict[str, bytes | None] = {}

    @property
    def dirty(self) -> bool:  # type: ignore[override]
        return bool(self._put)

    def put(self, name: str, value: bytes) -> None:
        super().put(name, value)
        self._put[name] = value

    def delete(self, name: str) -> None:
        super().delete(name)
        self._put[name] = None

    async def flush(self) -> None:
        if self.broken:
            raise StoreFailed("the disk is full")
        for name, value in self._put.items():
            if value is None:
                self._disk.pop(name, None)
            else:
                self._disk[name] = value
        self._put.clear()
