"""Agents that anything new must beat, and the bounds."""
