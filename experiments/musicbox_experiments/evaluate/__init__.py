"""Roll-outs of agents, metrics and statistics."""
