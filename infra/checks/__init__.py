"""What ``infra/doctor/__init__.py`` asks: of this machine (``host``) and of the services (``remote``)."""
