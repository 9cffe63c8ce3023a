"""Nearest neighbours by cosine: exact in blocks, approximate by faiss; in memory (`graph`) and on disk (`index`)."""
