"""Many exports from one plan, on several processes. Read sweep.py first."""
