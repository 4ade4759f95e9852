"""One request from its first byte to its outcome: `dispatch` is the whole of it on one screen."""
