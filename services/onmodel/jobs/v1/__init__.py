"""Generated from protos/onmodel/jobs/v1; see scripts/generate_contracts.py."""
