"""What a run leaves: results on disk, MLflow, tables, and the status of a directory."""
