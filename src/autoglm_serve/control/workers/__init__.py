"""The gateway's processes, and the channel between them and the control plane."""
