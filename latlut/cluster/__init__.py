"""One sweep by many workers: they measure leases, the driver alone writes the table."""
