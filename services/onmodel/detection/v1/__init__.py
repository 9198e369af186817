"""Generated from protos/onmodel/detection/v1; see scripts/generate_contracts.py."""
