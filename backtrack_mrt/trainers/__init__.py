"""The update, by TRL: the only package that touches it."""
