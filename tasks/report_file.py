"""What a report is called in the store, for those who look for one and make none.

Apart from ``tasks/report.py``, which needs all that a run is made with: torch, the charts.
"""

KIND = "report"
REPORT_FILE, SUMMARY_FILE = "report.html", "summary.json"
