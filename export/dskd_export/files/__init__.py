"""Reading and writing files: atomic, bounded, plain files only."""
