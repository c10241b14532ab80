"""Speed and memory beside peers and limits."""
