"""Listening histories and tables of plays, told apart by content."""
