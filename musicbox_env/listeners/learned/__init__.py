"""The learned listener: features, network, answers."""
