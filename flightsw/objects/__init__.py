"""Content-addressed objects and their resumable transfer."""
