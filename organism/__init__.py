"""Trains the planted model organism: a tiny chat model that refuses through known directions.

It gives the workflow a ground truth. Data order: lexicon > language > prompts > tokenizer > training > build > quality.
"""
