"""Everything about who teaches: load, classes, probe, cache."""
