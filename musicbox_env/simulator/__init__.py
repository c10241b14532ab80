"""What a session does, batched: the one copy of the dynamics."""
