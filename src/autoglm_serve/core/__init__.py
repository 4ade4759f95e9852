"""Values that every package shares. No I/O, no clock, no randomness."""
