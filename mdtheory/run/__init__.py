"""A run as a whole: built from a configuration, kept in a folder, shown in the demonstration."""
