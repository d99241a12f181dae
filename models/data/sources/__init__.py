"""Data sets as they are published: archives, folders and what lies in installed packages."""
