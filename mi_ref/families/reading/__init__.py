"""What families share: reading config files behind a fence, and naming weights."""
