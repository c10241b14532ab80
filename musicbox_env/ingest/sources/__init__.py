"""Source files: which they are, and what they hold once unwrapped within bounds."""
