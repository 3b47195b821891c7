"""What every run shares: its folder, settings, checkpoints, processes."""
