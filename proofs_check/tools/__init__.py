"""What claims are checked with: class worst cases, interval arithmetic, adversaries, closed
forms.
"""
