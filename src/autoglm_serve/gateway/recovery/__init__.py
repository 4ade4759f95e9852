"""How a stream goes on with another replica, and which requests may not."""
