"""MLflow: runs, registered models and the evaluator plugins."""
