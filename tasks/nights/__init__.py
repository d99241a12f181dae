"""The steps of a night around its training: line of champions, gates, record, alerts, part of the report."""
