"""The rivals of our loader and our sharding, one small program each; most run in ``.venv-rivals``, not beside ours.

Each program reads the same images, delivers batches of ``BATCH`` at ``SIDE`` pixels, and prints what
``clock.measure`` found. They import nothing of ours but ``clock``. ``install.sh`` makes their environment.
"""
