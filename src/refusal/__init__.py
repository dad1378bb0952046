"""Refusal directions in chat models: find them, ablate combinations of them, measure what is left."""
