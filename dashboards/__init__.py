"""What people look at: the run report, the Prefect run page and the terminal tables.

Everything here is a pure function of one summary (``summary.json``): no model, no Prefect.
"""
