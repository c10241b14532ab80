"""Commands, training, evaluation, statistics, plots and the report."""
