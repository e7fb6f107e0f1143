"""report.html and the terminal tables."""
