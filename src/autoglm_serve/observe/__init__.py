"""What the service tells of itself: counters, metrics, logs, the admin API."""
