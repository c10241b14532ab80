"""Training of agents over seeds."""
