"""HTTP as bytes on both sides: connections, server-sent events, splicing, error envelopes."""
