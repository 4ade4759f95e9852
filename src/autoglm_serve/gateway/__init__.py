"""The process that clients talk to. `worker` runs it, `server` speaks HTTP, `dispatch` is one request's life.

It knows the fleet view that the control plane pushes, and nothing of how replicas are made.
"""
