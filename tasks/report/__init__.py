"""The report: results of the experiments as one HTML page."""
