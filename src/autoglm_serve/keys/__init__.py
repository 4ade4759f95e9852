"""API keys: what one may do, and the table of them all."""
