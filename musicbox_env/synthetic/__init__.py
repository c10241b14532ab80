"""Synthetic sessions: generator, law, truth, and the published figures they meet."""
