"""Find the fastest artifact of this machine that keeps the user's limits; tune.py tells the story."""
