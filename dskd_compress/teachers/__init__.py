"""Everything about who teaches."""
