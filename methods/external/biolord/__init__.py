"""biolord, by its authors' package."""
