"""The referee's numbers computed a second time, by other means: nothing here imports the library or
the referee.
"""
