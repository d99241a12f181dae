"""The sections of the report: each a module that turns JSON into facts, and a template of the same name.

What the JSON lacks is shown as missing, never guessed: every number is in the JSON, in :mod:`models.paper`, or
follows from these by a ratio or a binomial standard error.
"""
