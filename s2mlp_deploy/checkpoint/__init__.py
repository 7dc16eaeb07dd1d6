"""Reading checkpoints, without running what is in them."""
