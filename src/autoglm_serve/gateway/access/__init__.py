"""Who asks, before it is decided what they get."""
