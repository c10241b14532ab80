"""One module a service: which tables it writes, and what their columns say."""
