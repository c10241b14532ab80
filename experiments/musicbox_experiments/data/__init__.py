"""Ingest, describe, synthesize, export."""
