"""Parts made into a dataset's columns, each part by itself."""
