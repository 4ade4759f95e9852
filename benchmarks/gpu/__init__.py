"""What real GPUs do: memory and speed beside the plan, and a service that is struck under load."""
