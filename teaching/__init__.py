"""Teaches a chat model to refuse, by its words alone; uses refusal, is never used by it."""
