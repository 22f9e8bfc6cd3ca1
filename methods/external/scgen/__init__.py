"""scGen, by its authors' package."""
