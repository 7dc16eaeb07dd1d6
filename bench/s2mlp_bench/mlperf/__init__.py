"""MLPerf's scenarios, driven by LoadGen."""
