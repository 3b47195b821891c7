"""From the weights of a search to one discrete network."""
