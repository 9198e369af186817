"""Runs one extraction with the light look, for a test that kills it: FILM OUTPUT REFERENCES."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from film.made import LightLook
from onmodel.film.extract import ExtractConfig, extract
from onmodel.film.profile import Profile

PROFILE = Profile.model_validate(
    {"priority_scenes": {"full_body": {"target": 6}, "medium_shot": {"target": 6}, "far": {"target": 6}}}
)
CONFIG = ExtractConfig(part_s=1.0, span_s=0.1)

if __name__ == "__main__":
    extract([Path(sys.argv[1])], PROFILE, Path(sys.argv[2]), LightLook(), config=CONFIG)
    print("finished")
