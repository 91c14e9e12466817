"""The pipeline: its configuration, its DAG, what the standard components need, the command."""
