"""Embeddings, and exact and approximate search in them."""
