"""Images and reports."""
