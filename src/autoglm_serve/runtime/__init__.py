"""What asyncio code of every room shares: time passed in, tasks that end, a value that is waited for."""
