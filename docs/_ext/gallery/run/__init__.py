"""What counts for running a page."""
