"""Generated street scenes: a data set without a download."""
