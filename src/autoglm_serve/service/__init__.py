"""The service: `boot` starts it, `run` is what then runs, `change` what may be done to it meanwhile."""
