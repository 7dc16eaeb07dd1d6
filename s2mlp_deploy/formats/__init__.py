"""What can be made: what a format must say of itself, and looking at artifacts before they are loaded."""
