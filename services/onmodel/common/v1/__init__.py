"""Generated from protos/onmodel/common/v1; see scripts/generate_contracts.py."""
