"""A search run: teacher and student searched in one supernet."""
