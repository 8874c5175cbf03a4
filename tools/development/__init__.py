"""The development command: set-up, demo, tests and checks.

Everything here uses the standard library only, so that it runs on a bare Python; what needs more
(``contact_sheet.py``, the tests, the checks) is started with the environment's own interpreter.
"""
