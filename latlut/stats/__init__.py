"""Numbers without input or output: quantiles, intervals, passes, builds, differences, agreement."""
