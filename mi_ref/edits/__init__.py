"""Interventions as data: what they change, where they act, and their files."""
