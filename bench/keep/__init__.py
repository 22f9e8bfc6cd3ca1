"""Everything that stays of a run: results on disk, MLflow, tables, and the status of a directory."""
