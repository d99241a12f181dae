"""Files of a data set wherever they lie: in folders, archives and object stores, by name and range of bytes."""
