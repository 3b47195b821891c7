"""The weight-sharing network that a search trains."""
