"""The control plane: keeps replicas and gateway workers running as they are wanted."""
