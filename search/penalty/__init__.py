"""The supernet's expected latency, differentiable, from a table."""
