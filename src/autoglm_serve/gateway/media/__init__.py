"""Pictures that an engine does not read, decoded and written again in a process of their own."""
