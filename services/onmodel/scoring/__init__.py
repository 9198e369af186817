"""CLIP embeddings and the scores made of them: model, metrics, service and client."""
