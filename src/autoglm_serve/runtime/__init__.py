"""What every room shares: time passed in, tasks that end, a value that is waited for, files of our own."""
