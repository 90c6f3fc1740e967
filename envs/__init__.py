"""Episode protocols, one per file; the module's name is the name for ``--env``."""
