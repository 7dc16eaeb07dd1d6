"""Networks of several kinds with a shift inside, written the way public code writes them, and their export."""
