"""What engines said of themselves in public logs and issues, beside what the planner says."""
