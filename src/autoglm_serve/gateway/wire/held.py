"""What a worker holds for its clients, in bytes, and each client's share of it. Pure.

Bodies are held from their first byte until they are answered, and answers while a client does not read them.
Who announces more than there is room for is refused before it sends.
"""

from collections import defaultdict


class Held:
    """Counts what is held; takes no more than the bounds allow."""

    def __init__(self, *, most_bytes: int, most_of_one_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._most_of_one_bytes = most_of_one_bytes
        self._by_client: defaultdict[str, int] = defaultdict(int)
        self.total_bytes = 0

    def of(self, client: str) -> int:
        return self._by_client.get(client, 0)

    def take(self, client: str, size_bytes: int) -> bool:
        """Hold so much more for the client, if there is room. Who holds nothing may hold one of any size."""
        if self.total_bytes + size_bytes > self._most_bytes and self.total_bytes:
            return False
        mine = self._by_client.get(client, 0)
        if mine and mine + size_bytes > self._most_of_one_bytes:
            return False
        self._by_client[client] = mine + size_bytes
        self.total_bytes += size_bytes
        return True

    def give(self, client: str, size_bytes: int) -> None:
        """Let so much of it go."""
        left = self._by_client[client] - size_bytes
        if left:
            self._by_client[client] = left
        else:
            del self._by_client[client]
        self.total_bytes -= size_bytes
