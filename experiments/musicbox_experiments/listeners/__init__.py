"""Fitting of listeners (user simulators) on logged sessions."""
