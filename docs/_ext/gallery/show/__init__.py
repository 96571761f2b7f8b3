"""What counts for showing a page."""
