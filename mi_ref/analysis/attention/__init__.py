"""Where heads look, and what each of those looks does."""
