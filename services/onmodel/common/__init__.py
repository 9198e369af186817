"""What the services share: wire words, channels, errors at the edge, pictures on their way to a model."""
