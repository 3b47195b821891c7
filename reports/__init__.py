"""Reports: plots and pages made from tables, validations and search runs, never from an engine."""
