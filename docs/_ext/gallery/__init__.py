"""The Sphinx extension that runs and shows the pages of the gallery."""
