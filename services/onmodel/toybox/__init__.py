"""A procedural world with exact ground truth, and the small models trained on it.

The modules, from the bottom up: `character` (who), `shapes` (ray casting), `paint` (textures), `body` and `hair` (a
character as shapes), `backdrop` and `occluder` (what is behind and in front), `scene` (a picture's contents), `render`
(pixels and truth), `wording` (captions), `dataset` (folders), `motion` and `film` (moving
pictures), `models` (where the bundled models are), `training_set`
and the `train_*` scripts that made them.
"""
