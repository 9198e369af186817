"""Films: frames, shots, targeted extraction, and grouping characters by who they are."""
