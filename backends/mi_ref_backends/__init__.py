"""Array libraries for mi_ref: one module each, found by entry point. See ``backends/README.md``."""
