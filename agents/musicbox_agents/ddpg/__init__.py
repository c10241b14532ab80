"""The DDPG on proto-actions: `agent` is the algorithm, everything else lies beside it."""
