"""The dataset folder: plays, sessions, catalog."""
