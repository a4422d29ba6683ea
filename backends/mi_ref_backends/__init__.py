"""Array libraries for mi_ref, found by entry point. See ``backends/README.md``."""
