"""From bytes to a call that may be asked: paths, checks, media, cost."""
