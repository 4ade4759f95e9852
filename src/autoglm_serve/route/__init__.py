"""Which replica serves a request. Pure: facts and loads in, a choice and its reason out."""
