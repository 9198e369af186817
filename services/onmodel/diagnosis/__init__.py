"""From what was measured of a trial and its dataset to causes, fixes and the next trial."""
