"""Several trials at once that differ by what a file names: ablations and searches, and what came of each.

From the bottom up: `config` (the file), `variants` (the training configs that it makes), `record` (what is kept of
each), `variant` (one of them, trained), `ray_tune` (all of them, at once), `watch` (how far they are), `outcome` (what
came of them), `run` (the whole).
"""
