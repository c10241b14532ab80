"""Agents that learn from logged sessions alone."""
