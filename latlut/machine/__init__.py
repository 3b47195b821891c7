"""The machine under a measurement: its CPUs and GPUs, its state, its lock, its peak figures."""
