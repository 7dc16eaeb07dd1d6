"""Passes, one a module: changes of a graph that check their requirements and promises.

Read optimize.py (the sequence for every graph) first, then fold_layernorm.py (one pass).
"""
