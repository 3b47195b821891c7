"""Latencies that were not measured, predicted from those that were: mathematics without I/O."""
