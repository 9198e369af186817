"""The `onmodel` command."""
