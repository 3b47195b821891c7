"""Networks to train, count, compare and deploy; found by name."""
