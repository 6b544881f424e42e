"""The order of things: the DAG of the pipeline, its runners, and the command line."""
