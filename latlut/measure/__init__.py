"""From a plan to recorded samples: sweeps, networks, benchmarks, layers."""
