"""What ``infra/doctor.py`` asks: of this machine (``host``) and of the services (``remote``)."""
