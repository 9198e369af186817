"""Verbs as jobs of a Ray cluster: what is sent, how it is followed, where its files lie."""
