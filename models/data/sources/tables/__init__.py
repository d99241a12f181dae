"""Tables and lists beside a user's images: their classes and splits."""
