"""Which replica is asked, and what that needs to know: the fleet as it is, and its load."""
