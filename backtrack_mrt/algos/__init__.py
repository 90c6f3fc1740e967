"""Group-to-weights algorithms, one per file; the module's name is the name for ``--algo``."""
