"""Comparison of agents: presets, summary, report, pictures."""
