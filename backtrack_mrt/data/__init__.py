"""Problems: generated, from files, from the hub."""
