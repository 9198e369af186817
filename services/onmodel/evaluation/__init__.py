"""Does the character hold? Test suites, pictures, figures with intervals, comparisons and reports.

From the bottom up: `suite` (what to ask), `generate` (pictures), `observe` (what the detector and the scorer see in
them), `identity` (is it our character, on a scale from 0 to 1), `metrics` (figures per scenario), `evaluate` (one
checkpoint), `compare` (several) and `report` (pages).
"""
