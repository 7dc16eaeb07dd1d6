"""The choice of ``s2mlp-tune``, held against a race of all its candidates, and the time that it takes."""
