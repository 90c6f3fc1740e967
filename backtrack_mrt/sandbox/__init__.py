"""Untrusted Python: an answer runs in one process, its tests in another, and plain values pass between them."""
