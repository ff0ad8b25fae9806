"""Jobs, budgets, runners, scrubbing."""
