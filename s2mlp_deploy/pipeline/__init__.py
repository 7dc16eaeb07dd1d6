"""From a checkpoint to verified bundles. Read deploy.py first."""
