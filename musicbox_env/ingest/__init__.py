"""From raw input to a dataset folder."""
