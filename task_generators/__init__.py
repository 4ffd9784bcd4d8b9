"""Procedural visual tasks: generate a problem, draw it, read the answer back, score it. Never imports torch or ray."""
