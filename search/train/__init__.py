"""A training run, and how well a network segments."""
