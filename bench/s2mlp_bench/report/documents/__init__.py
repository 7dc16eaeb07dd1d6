"""A contest as one HTML file."""
