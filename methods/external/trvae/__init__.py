"""trVAE, by scArches."""
