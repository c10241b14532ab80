"""Templates of the report (jinja2)."""
