"""Reading what callers pass to analyses: prompts, places, numbers."""
