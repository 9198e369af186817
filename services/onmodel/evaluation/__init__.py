"""Does the character hold? Test suites, pictures, figures with intervals, comparisons and reports.

From the bottom up: `suite` (what to ask), `origin` (what a picture depends on), `generate` (pictures), `tasks` (those
that are missing, drawn here or through `ray_draw` on a cluster), `observe` (what the detector and the scorer see in
them), `proportions` and `identity` (is it our character, on a scale from 0 to 1), `metrics` (figures per scenario),
`evaluate` (one checkpoint), `choice` (which checkpoint of a trial), `compare` (several trials), `lineage` (where a file
comes from) and `report` (pages).
"""
