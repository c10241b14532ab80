"""Trained agents in use."""
