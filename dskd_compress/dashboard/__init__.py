"""A running training in the terminal, read from its log alone, so that any process can follow it."""
