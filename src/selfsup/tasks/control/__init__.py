"""Tasks that learn from episodes."""
