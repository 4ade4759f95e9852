"""One replica: its life as a table of states, what is seen of it, what is wanted of it."""
