"""The simulator validation report."""
