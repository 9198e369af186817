"""Generated from protos/onmodel/scoring/v1; see scripts/generate_contracts.py."""
