"""From options to what runs: which model, which engine, how many replicas, and what is remembered of it."""
