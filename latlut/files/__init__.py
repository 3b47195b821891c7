"""Files: written whole or not at all, read within limits, told apart by kind."""
