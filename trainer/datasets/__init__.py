"""Data sets for meta-training and evaluation, and the sampling of few-shot episodes. Needs no torch."""
