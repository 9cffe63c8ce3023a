"""The page on which samples are labelled, and its server."""
