"""From a table's entries to a network's estimate."""
