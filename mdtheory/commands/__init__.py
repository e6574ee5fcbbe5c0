"""The commands, one file each; a file imports what it needs inside its functions, so that
``--help`` is quick.
"""
