"""Breaks things on purpose, and counts what the clients see."""
